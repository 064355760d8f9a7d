"""A curve of any length in a fixed number of points."""

import math
from typing import final


@final
class History:
    """The values of one metric over the whole run, thinned evenly as it grows.

    When it is full, neighbours are averaged, and each later point stands for twice as many values.
    Memory stays the same for ever, and the curve always spans all of it.

    Args:
        capacity: number of points to keep, even; between half of it and all of it are used.
    """

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._points: list[float] = []
        self._per_point = 1
        self._total = 0.0
        self._finite = 0
        self._seen = 0

    def add(self, value: float) -> None:
        """Add the next value; non-finite ones take part as gaps only."""
        if math.isfinite(value):
            self._total += value
            self._finite += 1
        self._seen += 1
        if self._seen < self._per_point:
            return
        self._points.append(self._pending())
        self._total, self._finite, self._seen = 0.0, 0, 0
        if len(self._points) == self._capacity:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [_mean(a, b) for a, b in pairs]
            self._per_point *= 2

    def points(self) -> list[float]:
        """The curve, NaN where it has gaps; its last point may stand for fewer values."""
        return [*self._points, self._pending()] if self._seen else list(self._points)

    def _pending(self) -> float:
        return self._total / self._finite if self._finite else math.nan


def _mean(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return (a + b) / 2
