"""The curves of all metrics over a run of any length, in a fixed number of points."""

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np


@final
class History:
    """What the metrics were over the whole run, thinned evenly as it grows.

    A point is the mean of rows that follow each other. When there is no room for another, pairs of
    neighbors become one, and each later point has twice as many rows. Memory is constant, and the
    curves always span the whole run.

    A point is NaN where no row had the metric, and infinite where it was never finite. The capacity
    is an even number of points; between half of it and all of it are used.
    """

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._per_point = 1
        self._count = 0
        # Column 0 is the step, which every row has.
        self._columns: dict[str, int] = {}
        # Sum of finite values, their number, and that of other values: by point and column.
        self._sums = np.zeros((3, capacity, 1))

    def add(self, names: Sequence[str], values: np.ndarray, steps: Sequence[int]) -> None:
        """Add rows that have the same metrics, `values` of shape `(rows, metrics)`."""
        columns = self._columns_of(names)
        rows = np.empty((len(steps), len(columns)))
        rows[:, 0], rows[:, 1:] = steps, values
        while len(rows):
            seen = 0
            if self._count:
                # The last point may have room for more rows.
                last = self._count - 1
                seen = last * self._per_point + int(self._sums[1, last, 0])
            room = self._capacity * self._per_point - seen
            self._add(columns, rows[:room], seen)
            if len(rows) >= room:
                self._halve()
            rows = rows[room:]

    def _add(self, columns: np.ndarray, rows: np.ndarray, seen: int) -> None:
        """Add rows after `seen` earlier ones; there is room for them."""
        self._count = (seen + len(rows) - 1) // self._per_point + 1
        points = np.arange(seen // self._per_point, self._count)
        starts = np.maximum(points * self._per_point - seen, 0)
        finite = np.isfinite(rows)
        parts = np.stack([np.where(finite, rows, 0.0), finite, ~finite])
        with np.errstate(over="ignore", invalid="ignore"):
            self._sums[:, points[:, None], columns] += np.add.reduceat(parts, starts, axis=1)

    def drop(self, start_step: int) -> None:
        """Drop the points whose mean step is `start_step` or after it."""
        points = self._sums[:, : self._count]
        self._replace(points[:, _means(points)[:, 0] < start_step])

    def drop_metrics(self, starts: Mapping[str, int]) -> None:
        """Drop each metric from the points whose mean step is its step in `starts` or after it."""
        steps = _means(self._sums[:, : self._count])[:, 0]
        for name in starts.keys() & self._columns.keys():
            places = np.flatnonzero(steps >= starts[name])
            self._sums[:, places, self._columns[name]] = 0.0

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a metric where it has any; NaN where it was not finite."""
        if name not in self._columns:
            return np.empty(0), np.empty(0)
        means = _means(self._sums[:, : self._count])
        steps, values = means[:, 0], means[:, self._columns[name]]
        present = ~np.isnan(values)
        values = np.where(np.isinf(values), np.nan, values)
        return steps[present], values[present]

    def table(self, most: int) -> tuple[list[str], np.ndarray]:
        """Names of all metrics, and at most `most` points of each: `(points, metrics)`."""
        sums = self._sums[:, : self._count, 1:]
        if self._count > most:
            with np.errstate(over="ignore", invalid="ignore"):
                sums = np.add.reduceat(sums, np.arange(most) * self._count // most, axis=1)
        return list(self._columns), _means(sums)

    def _columns_of(self, names: Sequence[str]) -> np.ndarray:
        """Columns of the step and of these metrics, which may be new."""
        for name in names:
            self._columns.setdefault(name, len(self._columns) + 1)
        new = len(self._columns) + 1 - self._sums.shape[2]
        if new:
            self._sums = np.pad(self._sums, ((0, 0), (0, 0), (0, new)))
        return np.array([0, *(self._columns[name] for name in names)], np.intp)

    def _halve(self) -> None:
        self._per_point *= 2
        with np.errstate(over="ignore", invalid="ignore"):
            self._replace(self._sums[:, ::2] + self._sums[:, 1::2])

    def _replace(self, points: np.ndarray) -> None:
        self._count = points.shape[1]
        self._sums[:, : self._count] = points
        self._sums[:, self._count :] = 0.0


def _means(sums: np.ndarray) -> np.ndarray:
    total, finite, infinite = sums
    mean = total / np.maximum(finite, 1)
    return np.where(finite > 0, mean, np.where(infinite > 0, np.inf, np.nan))
