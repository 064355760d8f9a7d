"""Metrics of the logger about itself. They cost no collective, and come from process 0 only."""

import time
from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from lerax_dist.host._queue import RowQueue

# Seconds between rows with these metrics.
_INTERVAL = 10.0


@final
class SelfMetrics:
    """What logging costs: metrics `lerax_dist/*`, in a row every 10 seconds.

    - `lerax_dist/callback_ms`: what a row has cost the thread that logged it, in milliseconds: the
      host callback of a compiled step, or `Logger.log`.
    - `lerax_dist/share_of_step`: the same as a fraction of the time that passed, from 0 to 1.
    - `lerax_dist/queue_rows`: messages with rows in the queue.
    - `lerax_dist/lag/<Backend>`: records of the journal that the backend has not received yet;
      infinite if it failed to open.
    """

    def __init__(
        self,
        queue: RowQueue,
        lags: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._lags = lags
        self._clock = clock
        self._last: float | None = None
        self._calls = 0
        self._seconds = 0.0

    def take(self) -> dict[str, np.float64]:
        """What to add to a row; empty until 10 seconds after the last time."""
        now = self._clock()
        if self._last is None:
            # From the first row on: before it the step is compiled.
            self._last, (self._calls, self._seconds, _) = now, self._queue.usage()
        passed = now - self._last
        if passed < _INTERVAL:
            return {}
        calls, seconds, waiting = self._queue.usage()
        cost = seconds - self._seconds
        found = {"queue_rows": float(waiting), "share_of_step": cost / passed}
        if calls > self._calls:
            found["callback_ms"] = 1000.0 * cost / (calls - self._calls)
        found |= {f"lag/{name}": lag for name, lag in self._lags().items()}
        self._last, self._calls, self._seconds = now, calls, seconds
        return {f"lerax_dist/{name}": np.float64(value) for name, value in found.items()}
