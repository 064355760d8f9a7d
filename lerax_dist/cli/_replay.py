"""`lerax-dist replay`: a backend is fed from the journal of a run."""

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lerax_dist._run_name import check_name, local_folder
from lerax_dist.backends import ALL_BACKENDS, AbstractLoggingBackend, one_line
from lerax_dist.cli._print import print_error
from lerax_dist.host._backend_worker import calls_of
from lerax_dist.journal import (
    Damage,
    Event,
    JournalReader,
    Liveness,
    Record,
    Row,
    journal_of,
    read_ends,
    state_of,
    step_and_names,
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
    refused: int = 0  # records that the backend does not take
    reason: str = ""  # why it does not take the first
    next_step: int | None = None  # lowest step that is missing, if the replay was stopped


def replay_command(
    run_dir: str,
    to: str,
    log_dir: str | None,
    name: str | None,
    project: str | None,
    *,
    from_step: int | None = None,
    force: bool = False,
) -> int:
    """Feed the backend whose `replay_name` is `to` from a journal. For the others see `--help`.

    Returns:
        Exit status: 0 if every record that could be read was written.
    """
    outcome = Outcome()
    try:
        (kind,) = (each for each in ALL_BACKENDS if each.replay_name == to)
        journal = journal_of(run_dir, clips=True)
        if kind.replay_files:
            local_folder(run_dir if log_dir is None else log_dir, "`--log-dir`")
        own = _own_name(journal)
        base = Path(log_dir) if log_dir is not None else None
        if kind.replay_files:
            base, chosen = _place(journal, own, log_dir, name)
            _prepare(base / chosen, kind, journal, completes=from_step is not None, force=force)
        else:
            chosen = check_name(name or own)
            if base is not None:
                base.mkdir(parents=True, exist_ok=True)
        backend = kind.for_replay(base, project=project)
        replay(journal, backend, chosen, outcome, from_step)
    except Exception as error:  # a backend may raise anything, e.g. W&B its own errors
        done = f"stopped after {outcome.rows:,} rows: " if outcome.rows else ""
        print_error(f"lerax-dist replay: {done}{str(error) or repr(error)}")
        if outcome.next_step is not None:
            how = f"Complete it with --from-step {outcome.next_step}, or replace it with --force."
            print_error(how)
        return 1
    where = f" in {base / chosen}" if kind.replay_files and base is not None else ""
    print_error(_summary(outcome, f"{to}{where}"))
    return 1 if outcome.refused else 0


def replay(
    journal: Path,
    backend: AbstractLoggingBackend,
    name: str,
    outcome: Outcome,
    from_step: int | None = None,
) -> None:
    """Write the records of a journal to a backend, which is opened and closed.

    Rows that a later incarnation of the run has superseded are left out, and so is what the backend
    refuses; an `OSError`, of a disk or a network, ends it. What was written is counted in
    `outcome`, and printed on the error output every two seconds. With `from_step` only rows and
    clips of that step or later are written; what the backend has of them by then is superseded.
    """
    alive = Liveness(journal).is_alive()
    reader = JournalReader(journal)
    ended = True
    printed = time.monotonic()
    backend.open(name)
    records = reader.records()
    try:
        if from_step is not None:
            backend.on_resume(from_step)
        for _, record in records:
            found = step_and_names(record)
            if from_step is not None and found is not None and found[0] < from_step:
                continue
            try:
                _write(record, backend, journal.parent, outcome)
            except OSError:
                left = (step_and_names(each) for _, each in ((0, record), *records))
                outcome.next_step = min((both[0] for both in left if both), default=None)
                raise
            if isinstance(record, Event) and record.kind in ("open", "close"):
                ended = record.kind == "close"
            if time.monotonic() - printed > _INTERVAL:
                printed = time.monotonic()
                share = reader.offset / reader.size
                print_error(f"{share:4.0%}  {outcome.rows:,} rows")
        outcome.running = alive and not ended
        if not ended and not alive:
            backend.on_end("interrupted")
    except BaseException:
        with contextlib.suppress(Exception):
            backend.on_end("failed")
        raise
    finally:
        outcome.superseded, outcome.damage = reader.superseded, reader.damage
        backend.close()


def _write(
    record: Record, backend: AbstractLoggingBackend, run_dir: Path, outcome: Outcome
) -> None:
    """Hand a record to a backend and count it.

    Raises:
        OSError: of a disk or a network; the next record would fail like it.
    """
    if isinstance(record, Event) and record.kind == "resume":
        # A backend that gets no superseded rows has none to drop.
        return
    try:
        calls = calls_of(record, backend, run_dir)
    except (OSError, ValueError):
        outcome.broken += 1
        return
    reasons: list[str] = []
    for call in calls:
        try:
            getattr(backend, call.method)(*call.args)
        except OSError:
            raise
        except Exception as error:
            at_step = "" if call.step is None else f" at step {call.step}"
            reasons.append(f"`{call.method}`{at_step}: {one_line(error)}")
    if reasons:
        outcome.refused += 1
        outcome.reason = outcome.reason or reasons[0]
    elif isinstance(record, Row):
        outcome.rows += 1
        outcome.first = record.step if outcome.first is None else outcome.first
        outcome.last = record.step
    elif record.kind == "video":
        outcome.clips += 1


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


def _prepare(
    folder: Path,
    kind: type[AbstractLoggingBackend],
    journal: Path,
    *,
    completes: bool,
    force: bool,
) -> None:
    """Remove the files of a backend if they are to be replaced; raise if they must stay."""
    found = sorted(path for pattern in kind.replay_files for path in folder.glob(pattern))
    if found and not completes and not force:
        raise RuntimeError(
            f"{found[0]} exists, and a replay replaces no file by itself. Pass --force to replace "
            "it, --from-step to complete it, or another --log-dir or --name."
        )
    if found and state_of(read_ends(journal), Liveness(journal).is_alive()) == "running":
        raise RuntimeError(
            f"{found[0]} cannot be replaced or completed while the run is being written. Pass "
            "another --log-dir or --name, or wait until the run is over."
        )
    if not completes:
        for path in found:
            path.unlink()


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
    if outcome.refused:
        records = _number(outcome.refused, "record")
        lines.append(f"left out {records} that it does not take, the first in {outcome.reason}")
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
