"""The curves of all metrics over a run of any length, in a fixed number of points."""

from collections.abc import Sequence
from typing import final

import numpy as np


@final
class History:
    """What the metrics were over the whole run, thinned evenly as it grows.

    When it is full, pairs of neighbors are averaged, and each later point is the mean of twice as
    many rows. Memory is constant, and the curves always span the whole run.

    A point is NaN where no row had the metric, and infinite where it was never finite.

    Args:
        capacity: number of points to keep, even; between half of it and all of it are used.
    """

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._names: dict[str, int] = {}
        self._steps = np.empty(capacity)
        self._points = np.full((capacity, 0), np.nan)
        self._count = 0
        self._per_point = 1
        self._clear()

    def add(self, names: Sequence[str], values: np.ndarray, steps: Sequence[int]) -> None:
        """Add rows that have the same metrics.

        Args:
            names: the metrics.
            values: their values, of shape `(rows, metrics)`.
            steps: the rows' steps.
        """
        columns = self._columns_of(names)
        start = 0
        while start < len(steps):
            stop = min(start + self._free_rows(), len(steps))
            if self._seen == 0 and stop - start >= self._per_point:
                stop = start + (stop - start) // self._per_point * self._per_point
                self._append(columns, values[start:stop], steps[start:stop])
            else:
                stop = min(start + self._per_point - self._seen, len(steps))
                self._accumulate(columns, values[start:stop], steps[start:stop])
            start = stop
            if self._count == self._capacity:
                self._halve()

    def _free_rows(self) -> int:
        return (self._capacity - self._count) * self._per_point

    def _append(self, columns: np.ndarray, values: np.ndarray, steps: Sequence[int]) -> None:
        """Add rows that make complete points."""
        shape = (len(steps) // self._per_point, self._per_point)
        grouped = values.reshape(*shape, values.shape[1])
        finite = np.isfinite(grouped)
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.where(finite, grouped, 0.0).sum(axis=1)
        new = slice(self._count, self._count + shape[0])
        self._points[new] = np.nan
        self._points[new, columns] = _means(
            total, finite.sum(axis=1), np.logical_or.reduce(~finite, axis=1)
        )
        self._steps[new] = np.array(steps, np.float64).reshape(shape).mean(axis=1)
        self._count = new.stop

    def _accumulate(self, columns: np.ndarray, values: np.ndarray, steps: Sequence[int]) -> None:
        """Add rows to the point that is not complete yet."""
        finite = np.isfinite(values)
        with np.errstate(over="ignore", invalid="ignore"):
            self._total[columns] += np.where(finite, values, 0.0).sum(axis=0)
        self._finite[columns] += finite.sum(axis=0)
        self._infinite[columns] |= (~finite).any(axis=0)
        self._step_total += sum(steps)
        self._seen += len(steps)
        if self._seen == self._per_point:
            self._steps[self._count], self._points[self._count] = self._pending()
            self._count += 1
            self._clear()

    def drop(self, start_step: int) -> None:
        """Drop the points whose mean step is `start_step` or after it."""
        kept = np.flatnonzero(self._steps[: self._count] < start_step)
        self._steps[: len(kept)] = self._steps[kept]
        self._points[: len(kept)] = self._points[kept]
        self._count = len(kept)
        if self._seen and self._step_total / self._seen >= start_step:
            self._clear()

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric where it has any; NaN where it was not finite."""
        if name not in self._names:
            return np.empty(0), np.empty(0)
        steps, points = self._all()
        values = points[:, self._names[name]]
        present = ~np.isnan(values)
        values = np.where(np.isinf(values), np.nan, values)
        return steps[present], values[present]

    def table(self) -> tuple[list[str], np.ndarray]:
        """Names of all metrics, and their points, of shape `(points, metrics)`."""
        return list(self._names), self._all()[1]

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        steps, points = self._steps[: self._count], self._points[: self._count]
        if not self._seen:
            return steps, points
        step, point = self._pending()
        return np.append(steps, step), np.vstack([points, point])

    def _pending(self) -> tuple[float, np.ndarray]:
        """The mean of the rows so far of the point that is not complete yet."""
        point = _means(self._total, self._finite, self._infinite)
        return self._step_total / max(self._seen, 1), point

    def _clear(self) -> None:
        self._seen, self._step_total = 0, 0
        self._total = np.zeros(len(self._names))
        self._finite = np.zeros(len(self._names), np.intp)
        self._infinite = np.zeros(len(self._names), bool)

    def _columns_of(self, names: Sequence[str]) -> np.ndarray:
        new_names = [name for name in names if name not in self._names]
        if new_names:
            for name in new_names:
                self._names[name] = len(self._names)
            more = np.full((self._capacity, len(new_names)), np.nan)
            self._points = np.hstack([self._points, more])
            self._total = np.append(self._total, np.zeros(len(new_names)))
            self._finite = np.append(self._finite, np.zeros(len(new_names), np.intp))
            self._infinite = np.append(self._infinite, np.zeros(len(new_names), bool))
        return np.array([self._names[name] for name in names], np.intp)

    def _halve(self) -> None:
        half = self._capacity // 2
        self._steps[:half] = (self._steps[::2] + self._steps[1::2]) / 2
        self._points[:half] = _merged(self._points[::2], self._points[1::2])
        self._count = half
        self._per_point *= 2


def _means(total: np.ndarray, finite: np.ndarray, infinite: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        mean = total / np.maximum(finite, 1)
    return np.where(finite > 0, mean, np.where(infinite, np.inf, np.nan))


def _merged(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Means of pairs of points; where one has no finite value, the other."""
    with np.errstate(invalid="ignore"):
        # Halved first: the sum of two large values may be more than a float holds.
        both = a / 2 + b / 2
    either = np.where(np.isfinite(b), b, np.fmax(a, b))
    return np.where(np.isfinite(a), np.where(np.isfinite(b), both, a), either)
