"""What the console knows of a run, whichever way it shows it."""

import threading
from collections.abc import Mapping
from typing import final

import numpy as np

from lerax_dist.backends._history import History
from lerax_dist.backends._progress import Progress


@final
class RunView:
    """The latest value of every metric, the progress, and the curve to draw.

    Attributes:
        name: name of the run.
        progress: how far it is.
        latest: last value of each metric, in order of first appearance.
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
        self.latest: dict[str, np.ndarray] = {}
        self.first_step = 0
        self.lock = threading.Lock()
        self._wanted = chart
        self._fallback: str | None = None
        self._curves: dict[str, History] = {}

    def add(self, scalars: Mapping[str, np.ndarray], step: int, now: float) -> None:
        """Take in a row."""
        with self.lock:
            if self.progress.step is None:
                self.first_step = step
            self.progress.advance(step, now)
            # Turned into text at a refresh, of which there are fewer than rows.
            self.latest.update(scalars)
            if self._fallback is None:
                self._fallback = next((n for n in scalars if "loss" in n.rsplit("/", 1)[-1]), None)
            for name in (self._wanted, self._fallback):
                if name is not None and name in scalars:
                    self._curves.setdefault(name, History()).add(float(scalars[name]))

    @property
    def charted(self) -> str | None:
        """The metric that is drawn, if there is one yet."""
        return next((n for n in (self._wanted, self._fallback) if n in self._curves), None)

    def curve(self) -> list[float]:
        """Its values over the run so far."""
        name = self.charted
        return [] if name is None else self._curves[name].points()
