"""What is known of a run that is shown, on a terminal, in plain lines or by `lerax-dist watch`."""

import itertools
import threading
from collections.abc import Container, Iterable, Mapping
from typing import Any, final

import numpy as np

from lerax_dist.backends._format import format_value
from lerax_dist.backends.console._history import History

HEADLINE = "episode/return"
"""The metric that is drawn unless the user names another."""
ABOUT_LOGGING = "lerax_dist/"
"""Prefix of the logger's metrics about itself, which the header shows."""
MAX_LAG = 1000
"""Records that a backend may be behind before a warning is shown; a batch is a few hundred."""
_MAX_LENGTH = 500
"""Characters of a name or value that a terminal shows; the whole is in the journal."""
MAX_HPARAMS = 200
"""Hyperparameters that a terminal shows."""
_MEMBER_ENDS = ("member_min", "member_max", "member_std")
"""Last parts of the names of metrics over members, see `LoggingCallback`."""
_MAX_ROWS = 256
"""Rows that are buffered before they are merged into the history."""
_MIN_SPAN = 1.0
"""Seconds of rows before a rate is shown: rows of one batch arrive together."""


def chosen_metric(names: Iterable[str], wanted: str) -> str | None:
    """`wanted` if it is among the names, else the first whose last part contains "loss"."""
    loss: str | None = None
    for name in names:
        if name == wanted:
            return name
        if loss is None and "loss" in name.rpartition("/")[2].lower():
            loss = name
    return loss


def is_range(name: str, names: Container[str]) -> bool:
    """Whether a metric only says how another one differs between members."""
    metric, _, end = name.rpartition("/")
    return end in _MEMBER_ENDS and metric in names


def range_of(name: str) -> list[str]:
    """The names of the lowest and the highest value over members of a metric."""
    return [f"{name}/{end}" for end in _MEMBER_ENDS[:2]]


def describe_value(name: str, values: Mapping[str, Any]) -> str:
    """The value of a metric, and its range over members if it has one: `1.2 [0.9, 1.5]`."""
    text = format_value(float(values[name]))
    ends = [format_value(float(values[end])) for end in range_of(name) if end in values]
    return f"{text} [{', '.join(ends)}]" if ends else text


def describe_launch(facts: Mapping[str, Any]) -> list[str]:
    """Launcher, processes times devices, host and incarnation, as far as they are known."""
    parts: list[str] = []
    if facts.get("launcher"):
        parts.append(str(facts["launcher"]))
    processes, devices = facts.get("process_count"), facts.get("device_count")
    if processes:
        size = f"{processes:,} process" if processes == 1 else f"{processes:,} processes"
        if devices and devices % processes == 0:
            each = devices // processes
            size += f" × {each:,} device" if each == 1 else f" × {each:,} devices"
        elif devices:
            size += f", {devices:,} devices"
        parts.append(size)
    if facts.get("host"):
        parts.append(f"on {facts['host']}")
    if facts.get("incarnation", 1) > 1:
        parts.append(f"incarnation {facts['incarnation']}")
    return [printable(part) for part in parts]


def printable(text: str, most: int | None = _MAX_LENGTH) -> str:
    """Text on one line without control characters, and with at most `most` of its characters.

    Names are from users and from other people's journals: an escape sequence in one could move the
    cursor, recolor the terminal or change its title.
    """
    if most is not None and len(text) > most:
        text = f"{text[:most]}... ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


@final
class Progress:
    """Step, rate and time of a run.

    The rate counts from the first row on, not from step 0 and the start: a resumed run does not
    claim the steps of its predecessor, and compilation before the first row does not slow it.
    Every `now` is in seconds, of any one clock that never goes back.

    Attributes:
        total: steps that the run will take, 0 if unknown.
        step: step of the last row, `None` before the first.
    """

    def __init__(self, now: float) -> None:
        self.total = 0
        self.step: int | None = None
        self._start = now
        self._first: tuple[int, float] | None = None
        self._last = now
        self._stride = 1

    def begin(self, total: int, now: float) -> None:
        """Training starts now and will take `total` steps, 0 if unknown."""
        self.total, self._start, self._first = total, now, None

    def advance(self, step: int, now: float) -> None:
        """A row with this step arrived."""
        if self._first is None or step < self._first[0]:
            self._first = (step, now)
        if self.step is not None and step > self.step:
            self._stride = step - self.step
        self.step = step
        self._last = now

    def share(self, *, finished: bool = False) -> float | None:
        """Part of the run that is done, from 0 to 1; `None` if its length is unknown.

        `finished` is whether the run has ended without an error.
        """
        if self.total <= 0:
            return None
        step = self.step or 0
        # `for step in range(total)` logs `total - 1` last, and one that logs every n steps
        # `total - n`. Steps alone cannot say that this was the last row: with steps counted from 1
        # there is another. So the end of the run decides: if the next row would have been at
        # `total` or later, the run is complete; one that stopped earlier is not.
        if finished and self.step is not None and step + self._stride >= self.total:
            return 1.0
        return min(1.0, max(0.0, step / self.total))

    @property
    def rate(self) -> float | None:
        """Steps per second; `None` until rows span a second."""
        if self._first is None or self.step is None:
            return None
        first, since = self._first
        if self._last - since < _MIN_SPAN or self.step <= first:
            return None
        return (self.step - first) / (self._last - since)

    def elapsed(self, now: float) -> float:
        """Seconds since the start."""
        return now - self._start

    def remaining(self, now: float) -> float | None:
        """Seconds to the end; `None` if the length or the rate is unknown."""
        if self.rate is None or self.total <= 0 or self.step is None:
            return None
        return max(0.0, (self.total - self.step) / self.rate - (now - self._last))


@final
class RunView:
    """The values of every metric, the progress, and the curves to draw.

    Adding a row costs its caller next to nothing: rows are buffered, and merged many at a time
    when the display is drawn.

    Attributes:
        name: name of the run.
        progress: its step, rate and time.
        facts: see `AbstractLoggingBackend.on_run`.
        state: "running", "finished", ...; empty while the program that shows the run is the run.
        notes: warnings, e.g. that the journal is damaged.
        lock: to be held while reading or changing any of it; never while writing to the terminal,
            whose own lock a reader may hold.
    """

    def __init__(self, name: str, chart: str, now: float) -> None:
        self.name = name
        self.progress = Progress(now)
        self.facts: dict[str, Any] = {}
        self.state = ""
        self.notes: list[str] = []
        self.lock = threading.Lock()
        self._wanted = chart
        self._rows: list[tuple[dict[str, Any], int]] = []
        self._latest: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._about_logging: dict[str, float] = {}
        self._history = History()

    def add(self, scalars: Mapping[str, Any], step: int, now: float) -> None:
        """Add a row."""
        with self.lock:
            self.progress.advance(step, now)
            self._rows.append((dict(scalars), step))
            if len(self._rows) >= _MAX_ROWS:
                self._merge_rows()

    def drop(self, start_step: int, metrics: Mapping[str, int] | None) -> None:
        """Drop the rows at a step or after it: the run was resumed from there.

        With `metrics` drop each of those metrics from its own step on, and no other.
        """
        with self.lock:
            self._merge_rows()
            if metrics is None:
                self._history.drop(start_step)
            else:
                self._history.drop_metrics(metrics)

    @property
    def share(self) -> float | None:
        """Part of the run that is done, from 0 to 1; `None` if its length is unknown."""
        return self.progress.share(finished=self.state == "finished")

    def remaining(self, now: float) -> float | None:
        """Seconds to the end; `None` if the length or the rate is unknown."""
        remaining = self.progress.remaining(now)
        return 0.0 if remaining is not None and self.share == 1.0 else remaining

    @property
    def latest(self) -> dict[str, Any]:
        """Last value of each metric, in order of first appearance."""
        self._merge_rows()
        return self._latest

    @property
    def before(self) -> dict[str, Any]:
        """The value before the last, of metrics that have two values."""
        self._merge_rows()
        return self._before

    @property
    def about_logging(self) -> dict[str, float]:
        """Last values of the logger's metrics about itself, without their prefix."""
        self._merge_rows()
        return self._about_logging

    @property
    def history(self) -> History:
        """All metrics over the whole run."""
        self._merge_rows()
        return self._history

    @property
    def charted(self) -> str | None:
        """The metric that is drawn; `None` before there is one."""
        return chosen_metric(self.latest, self._wanted)

    def _merge_rows(self) -> None:
        rows, self._rows = self._rows, []
        for names, group in itertools.groupby(rows, key=lambda row: tuple(row[0])):
            self._merge(names, list(group))

    def _merge(self, names: tuple[str, ...], rows: list[tuple[dict[str, Any], int]]) -> None:
        """Add rows that have the same metrics to the history and to the latest values."""
        about = [name for name in names if name.startswith(ABOUT_LOGGING)]
        last = rows[-1][0]
        self._about_logging |= {n.removeprefix(ABOUT_LOGGING): float(last[n]) for n in about}
        shown = [name for name in names if name not in about]
        # Only the last two rows can be seen as a value and its change.
        for scalars, _ in rows[-2:]:
            latest = self._latest
            self._before |= {name: latest[name] for name in shown if name in latest}
            latest |= {name: scalars[name] for name in shown}
        values = np.array([[scalars[name] for name in shown] for scalars, _ in rows], np.float64)
        self._history.add(shown, values, [step for _, step in rows])
