"""`lerax-dist replay`: a backend is fed from the journal of a run."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lerax_dist._run_name import check_name
from lerax_dist.backends import ALL_BACKENDS, AbstractLoggingBackend
from lerax_dist.cli._print import print_error
from lerax_dist.host._backend_worker import Call, calls_of
from lerax_dist.journal import (
    Damage,
    Event,
    JournalReader,
    Liveness,
    Record,
    Row,
    journal_of,
    read_ends,
)

# Seconds between two lines about the progress.
_INTERVAL = 2.0


@final
@dataclass
class Outcome:
    """What a replay has written."""

    rows: int = 0
    superseded: int = 0  # rows that were left out, as a later incarnation logged them again
    first: int | None = None  # step of the first row
    last: int | None = None  # step of the last row
    damage: Damage = field(default_factory=Damage)
    clips: int = 0
    broken: int = 0  # clips whose files could not be read
    running: bool = False  # whether the run was still being written


def replay_command(
    run_dir: str, to: str, log_dir: str | None, name: str | None, project: str | None
) -> int:
    """Feed the backend whose `replay_name` is `to` from a journal. For the others see `--help`.

    Returns:
        Exit status: 0 if every record that could be read was written.
    """
    outcome = Outcome()
    try:
        (kind,) = (each for each in ALL_BACKENDS if each.replay_name == to)
        journal = journal_of(run_dir)
        own = _own_name(journal)
        base = Path(log_dir) if log_dir is not None else None
        if kind.replay_files:
            base, chosen = _place(journal, own, log_dir, name)
            _check_free(base / chosen, kind)
        else:
            chosen = check_name(name or own)
            if base is not None:
                base.mkdir(parents=True, exist_ok=True)
        backend = kind.for_replay(base, project=project)
        replay(journal, backend, chosen, outcome)
    except Exception as error:  # a backend may raise anything, e.g. W&B its own errors
        done = f"stopped after {outcome.rows:,} rows: " if outcome.rows else ""
        print_error(f"lerax-dist replay: {done}{str(error) or repr(error)}")
        return 1
    where = f" in {base / chosen}" if kind.replay_files and base is not None else ""
    print_error(_summary(outcome, f"{to}{where}"))
    return 0


def replay(journal: Path, backend: AbstractLoggingBackend, name: str, outcome: Outcome) -> None:
    """Write the records of a journal to a backend, which is opened and closed.

    Rows that a later incarnation of the run has superseded are left out. What was written is
    counted in `outcome`, and printed on the error output every two seconds.
    """
    alive = Liveness(journal).is_alive()
    reader = JournalReader(journal)
    ended = True
    printed = time.monotonic()
    backend.open(name)
    try:
        for _, record in reader.records():
            for call in _calls_of(record, backend, journal.parent, outcome):
                # A backend that gets no superseded rows has none to drop.
                if call.method != "on_resume":
                    getattr(backend, call.method)(*call.args)
            if isinstance(record, Event) and record.kind in ("open", "close"):
                ended = record.kind == "close"
            if isinstance(record, Row):
                outcome.rows += 1
                outcome.first = record.step if outcome.first is None else outcome.first
                outcome.last = record.step
            if time.monotonic() - printed > _INTERVAL:
                printed = time.monotonic()
                share = reader.offset / reader.size
                print_error(f"{share:4.0%}  {outcome.rows:,} rows")
        outcome.running = alive and not ended
        if not ended and not alive:
            backend.on_end("interrupted")
    finally:
        outcome.superseded, outcome.damage = reader.superseded, reader.damage
        backend.close()


def _calls_of(
    record: Record, backend: AbstractLoggingBackend, run_dir: Path, outcome: Outcome
) -> list[Call]:
    try:
        calls = calls_of(record, backend, run_dir)
    except (OSError, ValueError):
        outcome.broken += 1
        return []
    outcome.clips += any(call.method == "log_video" for call in calls)
    return calls


def _place(journal: Path, own: str, log_dir: str | None, name: str | None) -> tuple[Path, str]:
    """The folder and the name to write under; `own` is the name of the run by its journal.

    By default that is where the journal is, also if the folder was moved or renamed.
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


def _check_free(folder: Path, kind: type[AbstractLoggingBackend]) -> None:
    found = sorted(path for pattern in kind.replay_files for path in folder.glob(pattern))
    if found:
        raise RuntimeError(
            f"{found[0]} exists, and a replay replaces no file. Pass another --log-dir or --name, "
            "or move the file away."
        )


def _summary(outcome: Outcome, where: str) -> str:
    steps = "" if outcome.first is None else f", steps {outcome.first:,} to {outcome.last:,}"
    lines = [f"{_number(outcome.rows, 'row')}{steps} to {where}"]
    if outcome.superseded:
        rows = _number(outcome.superseded, "row")
        lines.append(f"skipped {rows} that a later incarnation of the run logged again")
    if outcome.clips:
        lines.append(_number(outcome.clips, "video"))
    if outcome.broken:
        lines.append(f"skipped {_number(outcome.broken, 'video')}: the files cannot be read")
    damage = outcome.damage
    if damage.lines:
        lines.append(f"skipped {_number(damage.lines, 'damaged line')} of the journal")
    if damage.missing:
        lines.append(f"missing from the journal: {_number(damage.missing, 'record')}")
    elif damage.lines:
        lines.append("the numbers of the other records have no gap: no record is missing")
    if outcome.running:
        lines.append("the run is still being written; these are its rows so far")
    elif damage.torn:
        lines.append("the last line of the journal has no end: its writer was killed there")
    return "\n".join(lines)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
