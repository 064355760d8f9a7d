"""What the two ends of a journal say about a run. Pure."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from lerax_dist.backends.console._view import HEADLINE, chosen_metric
from lerax_dist.cli._ends import Ends
from lerax_dist.journal._record import Record, Row


@final
@dataclass(frozen=True)
class Run:
    """A run as `ls` shows it.

    Attributes:
        name: its folder, from the folder that was listed.
        state: "running", "finished", "failed", "crashed", "open", "empty", "damaged" or
            "unreadable"; or how else its close record says that it ended.
        rows: number of rows; counted by the number of the last record where the middle was not
            read, so a run that was resumed there has some fewer. None if there is no record.
        step: global step of the last row.
        time: when it came, in seconds since the epoch.
        age: seconds since then.
        metric: name of what is shown of it, see `headline`.
        value: its value.
        processes: number of processes of the run.
        host: host that wrote it.
        pid: process that wrote it there.
    """

    name: str
    state: str
    rows: int | None = None
    step: int | None = None
    time: float | None = None
    age: float | None = None
    metric: str | None = None
    value: float | None = None
    processes: int | None = None
    host: str | None = None
    pid: int | None = None


def describe(name: str, ends: Ends, now: float) -> Run:
    """What a journal's ends say.

    Args:
        name: what the run is called.
        ends: first and last records.
        now: time in seconds since the epoch.
    """
    records = [*ends.head, *ends.tail]
    opened: dict[str, Any] = {}
    for _, record in records:
        if not isinstance(record, Row) and record.kind == "open":
            opened = record.body
    rows = [record for _, record in records if isinstance(record, Row)]
    last = _closed(records[-1][1] if records else None)
    run = Run(
        name,
        state_of(last, ends.size, bool(records), ends.locked),
        rows=_count(ends, len(records), len(rows)) if records else None,
        processes=opened.get("process_count"),
        host=opened.get("host"),
        pid=opened.get("pid"),
    )
    if not rows:
        return run
    metric, value = headline(rows)
    newest, age = rows[-1], max(now - rows[-1].time, 0.0)
    return dataclasses.replace(
        run, step=newest.step, time=newest.time, age=age, metric=metric, value=value
    )


def headline(rows: Sequence[Row]) -> tuple[str | None, float | None]:
    """The metric that tells most of a run, and its last value among some rows.

    `episode/return` if any row has it, else the first whose last part contains "loss", else none.
    """
    newest = {name: value for row in rows for name, value in row.metrics.items()}
    name = chosen_metric(newest, HEADLINE)
    return name, None if name is None else float(newest[name])


def state_of(closed: str | None, size: int, has_records: bool, locked: bool | None) -> str:
    """How a run is.

    Args:
        closed: how its last record says that it ended, if it does.
        size: bytes of its journal.
        has_records: whether any of them could be read.
        locked: whether a logger has it open; `None` if nobody can tell.
    """
    if closed is not None:
        return closed
    if locked:
        return "running"
    if not has_records:
        return "damaged" if size else "empty"
    return "open" if locked is None else "crashed"


def _closed(last: Record | None) -> str | None:
    if last is None or isinstance(last, Row) or last.kind != "close":
        return None
    return str(last.body.get("state", "finished"))


def _count(ends: Ends, records: int, rows: int) -> int:
    if ends.whole:
        return rows
    last = (ends.tail or ends.head)[-1][0]
    return last + 1 - (records - rows)


def as_object(run: Run) -> dict[str, Any]:
    """A run as one JSON object; a value that JSON lacks is its name."""
    fields = dataclasses.asdict(run)
    value = run.value
    if value is not None and not math.isfinite(value):
        fields["value"] = "NaN" if math.isnan(value) else str(value).replace("inf", "Infinity")
    return fields


def as_row(run: Run) -> list[str]:
    """A run as cells of a table, see `HEADS`."""
    shown = "" if run.metric is None else f"{run.metric} {run.value:.4g}"
    return [
        run.name,
        run.state,
        "" if run.step is None else f"{run.step:,}",
        "" if run.rows is None else f"{run.rows:,}",
        "" if run.age is None else show_age(run.age),
        shown,
    ]


HEADS = ("run", "state", "last step", "rows", "last row", "last value")


def show_age(seconds: float) -> str:
    """A time span in one unit, e.g. "3 min ago"."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < length * most:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} d ago"
