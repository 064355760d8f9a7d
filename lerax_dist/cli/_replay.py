"""`lerax-dist replay`: a backend is fed from the journal of a run."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lerax_dist._run_name import check_name
from lerax_dist.backends import (
    AbstractLoggingBackend,
    JSONLBackend,
    TensorBoardBackend,
    WandbBackend,
)
from lerax_dist.cli._ends import read_ends
from lerax_dist.cli._locks import is_locked
from lerax_dist.cli._reader import JOURNAL, Damage, JournalReader
from lerax_dist.host._dispatch import Call, call_of, rows_call
from lerax_dist.journal._record import Event, Record, Row

_PATTERNS = {"tensorboard": "*tfevents*", "jsonl": "metrics.jsonl"}
_INTERVAL = 2.0


@final
@dataclass
class Outcome:
    """What a replay has handed on.

    Attributes:
        rows: number of rows.
        superseded: number of rows that were left out, since they came again.
        first: step of the first.
        last: step of the last.
        damage: what was wrong with the journal.
        clips: number of videos.
        broken: number of videos whose files could not be read.
        running: whether a logger had the journal open.
    """

    rows: int = 0
    superseded: int = 0
    first: int | None = None
    last: int | None = None
    damage: Damage = field(default_factory=Damage)
    clips: int = 0
    broken: int = 0
    running: bool = False


def replay_command(
    run_dir: str, to: str, log_dir: str | None, name: str | None, project: str | None
) -> int:
    """Feed a backend from a journal.

    Args:
        run_dir: folder of the run, or its journal.
        to: "tensorboard", "jsonl" or "wandb".
        log_dir: folder that the run's own goes to; None for that of the journal.
        name: name to write under; None for the run's own.
        project: W&B project.

    Returns:
        Exit status: 0 if every record that could be read was handed on.
    """
    journal = Path(run_dir)
    if journal.is_dir():
        journal = journal / JOURNAL
    if not journal.is_file():
        print(
            f"lerax-dist replay: there is no {JOURNAL} in {run_dir}. Give the folder of a run; "
            "`lerax-dist ls` lists them.",
            file=sys.stderr,
        )
        return 1
    outcome = Outcome()
    try:
        own = _own_name(journal)
        base, chosen = place(journal, own, log_dir, name)
        if to != "wandb":
            _check_free(base / chosen, to)
        else:
            chosen = check_name(name or own)
        backend = _backend(to, base, log_dir, project)
        replay(journal, backend, chosen, outcome, _told_at_times(journal, outcome))
    except Exception as error:  # a backend may raise anything, e.g. W&B its own errors
        done = f"stopped after {outcome.rows:,} rows: " if outcome.rows else ""
        print(f"lerax-dist replay: {done}{str(error) or repr(error)}", file=sys.stderr)
        return 1
    where = "W&B" if to == "wandb" else str(base / chosen)
    print(_summary(outcome, where, to), file=sys.stderr)
    return 0


def replay(
    journal: Path,
    backend: AbstractLoggingBackend,
    name: str,
    outcome: Outcome,
    on_record: Callable[[int], None] = lambda offset: None,
) -> None:
    """Hand the records of a journal to a backend, which is opened and closed.

    Rows that a later incarnation of the run has superseded are left out.

    Args:
        journal: the file; only read.
        backend: what to feed.
        name: name of the run.
        outcome: what was handed on is counted here.
        on_record: told after each record how far in the file it was, in bytes.
    """
    with journal.open("rb") as file:
        outcome.running = bool(is_locked(file))
    reader = JournalReader(journal)
    ended = True
    backend.open(name)
    try:
        for _, record in reader.records():
            call = _call_of(record, backend, journal.parent, outcome)
            # There is nothing to hide from a backend that gets the rows that stand only.
            if call is not None and call[0] != "on_resume":
                getattr(backend, call[0])(*call[1])
            if isinstance(record, Event) and record.kind in ("open", "close"):
                ended = record.kind == "close"
            if isinstance(record, Row):
                outcome.rows += 1
                outcome.first = record.step if outcome.first is None else outcome.first
                outcome.last = record.step
            on_record(reader.offset)
        if not ended and not outcome.running:
            backend.on_end("interrupted")
    finally:
        outcome.superseded, outcome.damage = reader.superseded, reader.damage
        backend.close()


def _call_of(
    record: Record, backend: AbstractLoggingBackend, run_dir: Path, outcome: Outcome
) -> Call | None:
    try:
        call = rows_call([record], backend) or call_of(record, backend, run_dir)
    except (OSError, ValueError):
        outcome.broken += 1
        return None
    outcome.clips += call is not None and call[0] == "log_video"
    return call


def place(journal: Path, own: str, log_dir: str | None, name: str | None) -> tuple[Path, str]:
    """The folder and the name to write under.

    By default that is where the journal is, also if the folder was moved or renamed.

    Args:
        journal: the journal.
        own: name of the run by its journal.
        log_dir: given by the user.
        name: given by the user.
    """
    run_dir = journal.resolve().parent
    if log_dir is not None:
        return Path(log_dir), check_name(name or own)
    if name is None:
        return run_dir.parent, run_dir.name
    parts = Path(own).parts
    base = run_dir.parents[len(parts) - 1] if run_dir.parts[-len(parts) :] == parts else None
    return base or run_dir.parent, check_name(name)


def _own_name(journal: Path) -> str:
    """Name of the run by its journal, else that of its folder."""
    for _, record in read_ends(journal).head[:16]:
        if not isinstance(record, Row) and record.kind == "open":
            return str(record.body["name"])
    return journal.resolve().parent.name


def _check_free(folder: Path, to: str) -> None:
    there = sorted(folder.glob(_PATTERNS[to]))
    if there:
        raise RuntimeError(
            f"{there[0]} is there already, and nothing is replaced. Give another --log-dir or "
            "--name, or move it away."
        )


def _backend(
    to: str, base: Path, log_dir: str | None, project: str | None
) -> AbstractLoggingBackend:
    if to == "tensorboard":
        return TensorBoardBackend(base)
    if to == "jsonl":
        return JSONLBackend(base)
    if log_dir is not None:
        base.mkdir(parents=True, exist_ok=True)
    return WandbBackend(project, quiet=True, dir=log_dir)


def _told_at_times(journal: Path, outcome: Outcome) -> Callable[[int], None]:
    """Says on the error output how far it is, now and then."""
    size = max(journal.stat().st_size, 1)
    last = time.monotonic()

    def tell(offset: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _INTERVAL:
            last = now
            share = min(offset / size, 1.0)
            print(f"{share:4.0%}  {outcome.rows:,} rows", file=sys.stderr, flush=True)

    return tell


def _summary(outcome: Outcome, where: str, to: str) -> str:
    steps = "" if outcome.first is None else f", steps {outcome.first:,} to {outcome.last:,}"
    lines = [f"{outcome.rows:,} rows{steps} to {to} in {where}"]
    if outcome.superseded:
        lines.append(f"{outcome.superseded:,} rows were left out that came again after a resume")
    if outcome.clips:
        lines.append(f"{outcome.clips:,} videos")
    if outcome.broken:
        lines.append(f"{outcome.broken:,} videos were left out whose files cannot be read")
    damage = outcome.damage
    if damage.lines:
        lines.append(f"{damage.lines:,} damaged lines in the journal were left out")
    if damage.missing:
        lines.append(f"{damage.missing:,} records are missing from the journal")
    elif damage.lines:
        lines.append("by their numbers no record is missing")
    if outcome.running:
        lines.append("the run is still being written; this is what it had up to now")
    elif damage.torn:
        lines.append("the last line of the journal is broken off: its writer was killed there")
    return "\n".join(lines)
