"""`lerax-dist ls`: the runs in a folder, by the two ends of their journals."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from lerax_dist.backends.console._view import HEADLINE, chosen_metric
from lerax_dist.cli._print import print_error, print_plain, print_table
from lerax_dist.journal import (
    JOURNAL,
    Ends,
    JournalFormatError,
    Liveness,
    Row,
    read_ends,
    state_of,
    to_json,
)
from lerax_dist.journal._bucket import local_copy

_HEADS = ("run", "state", "last step", "rows", "last row", "last value")


def list_runs(log_dir: str, *, as_json: bool) -> int:
    """Print the runs in a folder, the one written last at the end; return the exit status."""
    try:
        base, update = local_copy(log_dir, ends=True)
        update()
    except (OSError, ValueError) as error:
        print_error(f"lerax-dist ls: {error}")
        return 1
    if not base.is_dir():
        rule = "is not a folder. Pass the folder of the runs."
        print_error(f"lerax-dist ls: {log_dir} {rule}")
        return 1
    runs = [run for _, _, run in sorted(_runs(base), key=lambda each: each[:2])]
    if as_json:
        print_plain(to_json([asdict(run) for run in runs]).decode())
    elif runs:
        print_table(_HEADS, [_as_row(run) for run in runs])
    else:
        print_error(f"lerax-dist ls: no run in {log_dir}: no folder has a {JOURNAL}")
    return 0


@final
@dataclass
class ListedRun:
    """A run as `ls` shows it."""

    name: str  # its folder, relative to the folder that was listed
    state: str  # see `state_of`; or "unreadable"
    # By the number of the last record where the middle was not read, so a few too many for a run
    # that was resumed there; `None` if no record can be read.
    rows: int | None = None
    step: int | None = None  # global step of the last row
    time: float | None = None  # when it was logged, in seconds since the epoch
    age: float | None = None  # seconds since then
    metric: str | None = None  # the metric that is shown, see `headline`
    value: float | None = None  # its last value
    processes: int | None = None  # process count
    host: str | None = None  # host of the writer process
    pid: int | None = None  # process id of the writer process


def _runs(base: Path) -> Iterator[tuple[float, str, ListedRun]]:
    """Each run, when its journal has changed, and its name.

    On a network file system that is the server's clock: those of the hosts may differ.
    """
    for folder, _, files in os.walk(base):
        if JOURNAL not in files:
            continue
        name = str(Path(folder).relative_to(base))
        name = base.resolve().name if name == "." else name
        journal = Path(folder) / JOURNAL
        changed = 0.0
        try:
            changed = journal.stat().st_mtime
            ends = read_ends(journal)
        except (OSError, JournalFormatError) as error:
            yield changed, name, ListedRun(name, "unreadable")
            why = error.strerror if isinstance(error, OSError) else error
            print_error(f"lerax-dist ls: {folder}: {why}")
            continue
        yield changed, name, describe(name, ends, Liveness(journal).is_alive(), time.time())


def describe(name: str, ends: Ends, alive: bool, now: float) -> ListedRun:
    """What `ls` shows of a run, by the ends of its journal; `now` in seconds since the epoch."""
    records = [*ends.head, *ends.tail]
    opened: dict[str, Any] = {}
    for _, record in records:
        if not isinstance(record, Row) and record.kind == "open":
            opened = record.body
    rows = [record for _, record in records if isinstance(record, Row)]
    run = ListedRun(
        name,
        state_of(ends, alive),
        processes=opened.get("process_count"),
        host=opened.get("host"),
        pid=opened.get("pid"),
    )
    if records:
        events = len(records) - len(rows)
        run.rows = len(rows) if ends.whole else records[-1][0] + 1 - events
    if rows:
        last = rows[-1]
        run.step, run.time, run.age = last.step, last.time, max(now - last.time, 0.0)
        run.metric, run.value = headline(rows)
    return run


def headline(rows: Sequence[Row]) -> tuple[str | None, float | None]:
    """The most informative metric of a run, and its last value among some rows.

    `episode/return` if any row has it, else the first whose last part contains "loss", else none.
    """
    latest = {name: value for row in rows for name, value in row.metrics.items()}
    name = chosen_metric(latest, HEADLINE)
    return name, None if name is None else float(latest[name])


def _as_row(run: ListedRun) -> list[str]:
    shown = "" if run.metric is None else f"{run.metric} {run.value:.4g}"
    return [
        run.name,
        run.state,
        "" if run.step is None else f"{run.step:,}",
        "" if run.rows is None else f"{run.rows:,}",
        "" if run.age is None else show_age(run.age),
        shown,
    ]


def show_age(seconds: float) -> str:
    """A time span in one unit, e.g. "3 min ago"."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < length * limit:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} d ago"
