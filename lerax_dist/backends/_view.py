"""What is known of a run that is shown, whichever way it is shown."""

import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from lerax_dist.backends._history import History
from lerax_dist.backends._progress import Progress

HEADLINE = "episode/return"
"""The metric that is looked at unless another is wished for."""
OWN = "lerax_dist/"
"""What the metrics start with that logging has of itself: they are shown in the header."""
FAR_BEHIND = 1000
"""Records that a backend may lag behind before it is worth a word; a batch is a few hundred."""
_MOST_ROWS = 256
"""Rows that wait to be taken apart."""


def chosen_metric(names: Iterable[str], wanted: str) -> str | None:
    """The metric that tells most of a run: the one wanted if it is there, else a loss, else none.

    Args:
        names: names of metrics.
        wanted: name of a metric.

    Returns:
        `wanted`, else the first whose last part contains "loss", else `None`.
    """
    loss: str | None = None
    for name in names:
        if name == wanted:
            return name
        if loss is None and "loss" in name.rpartition("/")[2].lower():
            loss = name
    return loss


@final
class RunView:
    """The values of every metric, the progress, and the curves to draw.

    A row costs the one who brings it next to nothing: rows are taken apart many at a time, when
    somebody looks.

    Attributes:
        name: name of the run.
        progress: how far it is.
        facts: what the journal says of the run, see `SupportsRunFacts`.
        state: how it is, e.g. "running"; empty if whoever looks knows.
        notes: what is wrong with the record of it.
        lock: held by whoever reads or changes any of it; never while writing to the terminal,
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
        """Take in a row."""
        with self.lock:
            self.progress.advance(step, now)
            self._rows.append((dict(scalars), step))
            if len(self._rows) >= _MOST_ROWS:
                self._settle()

    def drop(self, start_step: int) -> None:
        """Forget the rows at a step or after it: the run was continued from there."""
        with self.lock:
            self._settle()
            self._history.drop(start_step)

    @property
    def latest(self) -> dict[str, Any]:
        """Last value of each metric, in order of first appearance."""
        self._settle()
        return self._latest

    @property
    def before(self) -> dict[str, Any]:
        """The value before the last, of metrics that came twice."""
        self._settle()
        return self._before

    @property
    def own(self) -> dict[str, float]:
        """Last values of logging's own metrics, without their prefix."""
        self._settle()
        return self._own

    @property
    def history(self) -> History:
        """All metrics over the whole run."""
        self._settle()
        return self._history

    @property
    def charted(self) -> str | None:
        """The metric that is drawn, if there is one yet."""
        return chosen_metric(self.latest, self._wanted)

    def _settle(self) -> None:
        rows, self._rows = self._rows, []
        for names, group in itertools.groupby(rows, key=lambda row: tuple(row[0])):
            self._take(names, list(group))

    def _take(self, names: tuple[str, ...], rows: list[tuple[dict[str, Any], int]]) -> None:
        """Take in rows of the same metrics."""
        own = {name: name.removeprefix(OWN) for name in names if name.startswith(OWN)}
        last = rows[-1][0]
        self._own |= {short: float(last[name]) for name, short in own.items()}
        shown = [name for name in names if name not in own]
        # Those before the last two could not be seen any more.
        for scalars, _ in rows[-2:]:
            latest = self._latest
            self._before |= {name: latest[name] for name in shown if name in latest}
            latest |= {name: scalars[name] for name in shown}
        values = np.array([[scalars[name] for name in shown] for scalars, _ in rows], np.float64)
        self._history.add(shown, values, [step for _, step in rows])
