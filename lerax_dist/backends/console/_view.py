"""What is known of a run that is shown, on a terminal, in plain lines or by `lerax-dist watch`."""

import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from lerax_dist.backends.console._history import History
from lerax_dist.backends.console._progress import Progress

HEADLINE = "episode/return"
"""The metric that is drawn unless the user names another."""
OWN = "lerax_dist/"
"""Prefix of the logger's metrics about itself, which the header shows."""
MAX_LAG = 1000
"""Records that a backend may be behind before a warning is shown; a batch is a few hundred."""
_MAX_ROWS = 256
"""Rows that are buffered before they are merged into the history."""


def chosen_metric(names: Iterable[str], wanted: str) -> str | None:
    """The metric to draw.

    Args:
        names: names of metrics.
        wanted: name of a metric.

    Returns:
        `wanted` if it is among the names, else the first whose last part contains "loss", else
        `None`.
    """
    loss: str | None = None
    for name in names:
        if name == wanted:
            return name
        if loss is None and "loss" in name.rpartition("/")[2].lower():
            loss = name
    return loss


def describe_launch(facts: Mapping[str, Any]) -> list[str]:
    """Launcher, processes times devices, host and incarnation, as far as they are known.

    Args:
        facts: what the journal says of the run.
    """
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


def printable(text: str) -> str:
    """Text on one line without control characters.

    Names come from users and from journals of others: an escape sequence in one could move the
    cursor, recolor the terminal or change its title.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


@final
class RunView:
    """The values of every metric, the progress, and the curves to draw.

    Adding a row costs its caller next to nothing: rows are buffered, and merged many at a time
    when the display is drawn.

    Attributes:
        name: name of the run.
        progress: its step, rate and time.
        facts: what the journal says of the run.
        state: "running", "finished", ...; empty if the program that shows the run is the run.
        notes: warnings, e.g. that the journal is damaged.
        lock: to be held while reading or changing any of it; never while writing to the terminal,
            whose own lock a reader may hold.

    Args:
        name: name of the run.
        chart: metric to draw. Until it comes, the first whose last part contains "loss" is drawn.
        now: present time in seconds.
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
        self._own: dict[str, float] = {}
        self._history = History()

    def add(self, scalars: Mapping[str, Any], step: int, now: float) -> None:
        """Add a row."""
        with self.lock:
            self.progress.advance(step, now)
            self._rows.append((dict(scalars), step))
            if len(self._rows) >= _MAX_ROWS:
                self._merge_rows()

    def drop(self, start_step: int) -> None:
        """Drop the rows at a step or after it: the run was resumed from there."""
        with self.lock:
            self._merge_rows()
            self._history.drop(start_step)

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
        """The value before the last, of metrics that came twice."""
        self._merge_rows()
        return self._before

    @property
    def own(self) -> dict[str, float]:
        """Last values of the logger's metrics about itself, without their prefix."""
        self._merge_rows()
        return self._own

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
        own = {name: name.removeprefix(OWN) for name in names if name.startswith(OWN)}
        last = rows[-1][0]
        self._own |= {short: float(last[name]) for name, short in own.items()}
        shown = [name for name in names if name not in own]
        # Only the last two rows can be seen as a value and its change.
        for scalars, _ in rows[-2:]:
            latest = self._latest
            self._before |= {name: latest[name] for name in shown if name in latest}
            latest |= {name: scalars[name] for name in shown}
        values = np.array([[scalars[name] for name in shown] for scalars, _ in rows], np.float64)
        self._history.add(shown, values, [step for _, step in rows])
