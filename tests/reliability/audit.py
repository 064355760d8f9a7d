"""Compares what a run has on disk, in its journal and in each backend, with what was sent."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

import lerax_dist as ld
from lerax_dist.journal import Row, decode
from tests.reliability.worker import ATTEMPT, SENT, X, value_of

# What the system is promised to have: rows this much older than a kill, in seconds.
GRACE = 1.0


def undisturbed(kill: float, troubles: Iterable[tuple[float, float]]) -> float:
    """When a process was killed, had nothing stood in its way in its last second.

    A process that stands still, or whose disk fails, writes nothing: that time does not count.

    Args:
        kill: when it was killed.
        troubles: begin and end of each trouble that it had.
    """
    left = GRACE
    for begin, end in sorted(troubles, key=lambda trouble: -trouble[1]):
        if kill - end >= left:
            break
        left -= max(kill - end, 0.0)
        kill = min(kill, begin)
    return kill - left + GRACE


class Key(NamedTuple):
    """A row, by which start of the run sent it, and at which step."""

    attempt: int
    step: int


@final
@dataclass
class Verdict:
    """What became of the rows of a run.

    Attributes:
        sent: rows that were sent.
        promised: rows that must be there.
        lost: rows inside the promise that a file lacks, all files together.
        wrong: what else is wrong: rows twice, out of order, with wrong values, or invented.
        longest: longest stop of the training, in seconds.
    """

    sent: int = 0
    promised: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0


class Found(NamedTuple):
    """A row that a file holds."""

    key: Key
    value: float


def audit(
    run_dir: Path,
    side: Path,
    *,
    killed: Mapping[int, float] | None = None,
    starts: Mapping[int, int] | None = None,
    files: Sequence[str] = ("journal", "event", "jsonl"),
) -> Verdict:
    """Compare each file of a run with the rows that its starts have sent.

    Args:
        run_dir: folder of the run.
        side: folder of what the workers have sent.
        killed: number of a start to the time of its kill, of those that were killed.
        starts: number of a start to its first step, of those that continue the run.
        files: `"journal"` (read by `read_run` and line by line), `"event"` (the event files, as
            TensorBoard shows them), `"jsonl"`, a path of another such file, or `"wandb:<folder>"`
            for the runs of W&B in a folder.

    Returns:
        The verdict.
    """
    sent, longest = _sent(side)
    until = {attempt: at - GRACE for attempt, at in (killed or {}).items()}
    promised = {key for key, at in sent.items() if at <= until.get(key.attempt, at)}
    # One that was under way when its process was killed may be there or not.
    last: dict[int, int] = {}
    for key in sent:
        last[key.attempt] = max(last.get(key.attempt, -1), key.step)
    allowed = set(sent) | {Key(attempt, step + 1) for attempt, step in last.items()}
    for attempt, start in (starts or {}).items():
        allowed.add(Key(attempt, start))

    def is_current(key: Key) -> bool:
        return all(key.attempt >= a or key.step < start for a, start in (starts or {}).items())

    verdict = Verdict(len(sent), len(promised), longest=longest)
    current = {key for key in promised if is_current(key)}
    for file in files:
        if file == "journal":
            _compare("lines of the journal", _lines(run_dir), promised, allowed, verdict)
            rows = _run(run_dir)
            _compare("`read_run`", rows, current, {k for k in allowed if is_current(k)}, verdict)
        elif file == "event":
            _compare("event files", _events(run_dir), current, allowed, verdict)
        elif file.startswith("wandb:"):
            rows = _wandb(Path(file.removeprefix("wandb:")))
            _compare("W&B", rows, current, allowed, verdict)
        else:
            path = run_dir / "metrics.jsonl" if file == "jsonl" else Path(file)
            _compare(path.name, _json_lines(path), current, allowed, verdict)
    return verdict


def _sent(side: Path) -> tuple[dict[Key, float], float]:
    """When each row was sent, and the longest stop."""
    sent: dict[Key, float] = {}
    longest = 0.0
    for path in sorted(side.glob("sent-*")):
        data = path.read_bytes()
        whole = len(data) // SENT.size * SENT.size
        for step, attempt, at, stop in SENT.iter_unpack(data[:whole]):
            sent[Key(attempt, step)] = at
            longest = max(longest, stop)
    return sent, longest


def _compare(
    where: str, found: Iterable[Found], promised: set[Key], allowed: set[Key], verdict: Verdict
) -> None:
    rows = list(found)
    keys = [row.key for row in rows]
    counts = Counter(keys)
    missing = promised - counts.keys()
    if missing:
        verdict.lost += len(missing)
        verdict.wrong.append(f"{where}: lost {_some(missing)}")
    twice = {key for key, count in counts.items() if count > 1}
    for what, bad in (
        ("twice", twice),
        ("invented", counts.keys() - allowed),
        ("wrong", {row.key for row in rows if row.value != value_of(row.key.step)}),
        ("out of order", {b for a, b in zip(keys, keys[1:], strict=False) if b < a}),
    ):
        if bad:
            verdict.wrong.append(f"{where}: {what} {_some(bad)}")


def _some(keys: Iterable[Key]) -> str:
    ordered = sorted(keys)
    shown = ", ".join(f"{key.step} of start {key.attempt}" for key in ordered[:3])
    return f"{len(ordered)} rows (step {shown}{', ...' if len(ordered) > 3 else ''})"


def _lines(run_dir: Path) -> Iterable[Found]:
    """Every row of the journal, superseded or not."""
    with (run_dir / "journal.jsonl").open("rb") as file:
        for line in file:
            pair = decode(line)
            if pair is not None and isinstance(pair[1], Row):
                metrics = pair[1].metrics
                yield Found(Key(int(metrics[ATTEMPT]), pair[1].step), float(metrics[X]))


def _run(run_dir: Path) -> Iterable[Found]:
    run = ld.read_run(run_dir)
    if X not in run:
        return []
    steps, values = run[X]
    attempts = run[ATTEMPT].values.astype(int).tolist()
    rows = zip(attempts, steps.tolist(), values.tolist(), strict=True)
    return [Found(Key(attempt, step), value) for attempt, step, value in rows]


def _events(run_dir: Path) -> Iterable[Found]:
    """The curves that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # It logs each purge, which is what a run that continues asks for.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    shown = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    shown.Reload()
    if X not in shown.Tags()["scalars"]:
        return []
    return [
        Found(Key(int(attempt.value), x.step), x.value)
        for x, attempt in zip(shown.Scalars(X), shown.Scalars(ATTEMPT), strict=True)
    ]


def _wandb(folder: Path) -> Iterable[Found]:
    """The rows in the files of W&B."""
    from tests.backends.read_wandb import read_wandb

    for path in sorted(folder.glob("wandb/*run-*/run-*.wandb")):
        for row in read_wandb(path).rows:
            if X in row:
                yield Found(Key(int(row[ATTEMPT]), int(row["global_step"])), row[X])


def _json_lines(path: Path) -> Iterable[Found]:
    """The rows of a file of JSON lines, read as its documentation says."""
    rows: list[Found] = []
    if not path.exists():
        return rows
    with path.open(errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "step" not in row:
                rows = [earlier for earlier in rows if earlier.key.step < row["resume"]]
            elif X in row:
                rows.append(Found(Key(int(row[ATTEMPT]), row["step"]), row[X]))
    return rows


def last_step(run_dir: Path) -> int:
    """The last step that a run has; -1 if none."""
    steps = ld.read_run(run_dir).steps
    return int(np.max(steps)) if len(steps) else -1
