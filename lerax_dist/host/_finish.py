"""Merged totals become rows: with their times and pace, without what has no value. No thread."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import RowBatch
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._reorder import PartialRow
from lerax_dist.journal import Row

# Metrics of the pace: global steps a second, and seconds an iteration.
PACE_NAMES = ("time/steps_per_second", "time/iteration_seconds")
# Seconds between rows with the logger's metrics about itself.
_SELF_INTERVAL = 10.0


class Pace(NamedTuple):
    """The last row, by which the pace of the next is known. Immutable.

    Attributes:
        clock: when it came, in seconds of a monotonic clock; `None` before the first.
        step: its global step; `None` if unknown.
        iteration: its iteration.
    """

    clock: float | None = None
    step: int | None = None
    iteration: int = 0

    @staticmethod
    def start(clock: float, iteration: int) -> "Pace":
        """Training starts after `iteration` iterations; a fresh one starts at step 0."""
        return Pace(clock, 0 if iteration == 0 else None, iteration)

    def moment(self, clock: float, iteration: int, last: int) -> float:
        """When an iteration was done whose row came in one message with those up to `last`.

        The rows of a message are spread evenly over the time since the row before them: more
        cannot be known without a callback for each.

        Args:
            clock: when the message came.
            iteration: number of the row's iteration.
            last: number of the last row's iteration in the message.
        """
        if self.clock is None or last <= self.iteration or clock <= self.clock:
            return clock
        fraction = (iteration - self.iteration) / (last - self.iteration)
        return self.clock + (clock - self.clock) * min(max(fraction, 0.0), 1.0)

    def advance(self, clock: float, step: int, iteration: int) -> "tuple[Pace, float, float]":
        """A row comes: the new pace, and the values of `PACE_NAMES` since the row before; NaN where
        there is nothing to compare with."""
        steps_per_second = iteration_seconds = math.nan
        if self.clock is not None and clock > self.clock and iteration > self.iteration:
            seconds = clock - self.clock
            if self.step is not None and step >= self.step:
                steps_per_second = (step - self.step) / seconds
            iteration_seconds = seconds / (iteration - self.iteration)
        return Pace(clock, step, iteration), steps_per_second, iteration_seconds


@final
class RowFinisher:
    """Makes rows of merged totals, many at once, with their times and the pace of the run.

    Args:
        failures: where to record the first value that is not finite.
    """

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._pace = Pace()

    def start(self, clock: float, iteration: int) -> None:
        """A training starts.

        Args:
            clock: seconds of a monotonic clock.
            iteration: iterations done before.
        """
        self._pace = Pace.start(clock, iteration)

    def rows(self, partials: Sequence[PartialRow]) -> list[Row]:
        """The rows of partial rows that have one schema, in their order."""
        batch = partials[0].schema.finish([row.totals for row in partials])
        self._check(batch)
        times: list[float] = [row.time for row in partials]
        iterations: list[int | None] = [None] * len(partials)
        names, values, absent = batch.names, batch.values, batch.absent
        if partials[0].clock is not None:
            iterations = [row.number for row in partials]
            pace = np.array(
                [self._advance(*both) for both in zip(partials, batch.steps, strict=True)]
            )
            times = (times - pace[:, -1]).tolist()
            missing = np.isnan(pace[:, :-1])
            for column, name in enumerate(PACE_NAMES):
                # A metric of the user's with such a name yields to ours.
                if name in names:
                    absent[:, names.index(name)] |= ~missing[:, column]
            absent = np.hstack([absent, missing])
            names, values = names + PACE_NAMES, np.hstack([values, pace[:, :-1]])
        heads = zip(times, batch.steps, iterations, strict=True)
        scalars = zip(heads, _present(names, values, absent), strict=True)
        if not batch.vectors:
            return [Row(*head, *both) for head, both in scalars]
        return [
            Row(*head, *both, _present_vectors(batch.vectors, i))
            for i, (head, both) in enumerate(scalars)
        ]

    def _advance(self, row: PartialRow, step: int) -> tuple[float, float, float]:
        """The values of `PACE_NAMES` for a row, and how long before its message it was done."""
        assert row.clock is not None
        clock = self._pace.moment(row.clock, row.number, row.last)
        self._pace, *pace = self._pace.advance(clock, step, row.number)
        return pace[0], pace[1], row.clock - clock

    def _check(self, batch: RowBatch) -> None:
        """Report the first value that is not finite."""
        bad = ~(np.isfinite(batch.values) | batch.absent)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            self._failures.record(
                "metrics",
                f"{batch.names[column]!r} is {batch.values[row, column]} at step "
                f"{batch.steps[row]}, the first value that is not finite",
                kind="not finite",
            )


def _present(
    names: tuple[str, ...], values: np.ndarray, absent: np.ndarray
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Names and values of each row, without those that are absent."""
    if (absent == absent[0]).all():
        names = tuple(itertools.compress(names, ~absent[0]))
        yield from ((names, row) for row in values[:, ~absent[0]])
        return
    known: dict[bytes, tuple[str, ...]] = {}
    for row, gaps in zip(values, absent, strict=True):
        key = gaps.tobytes()
        if key not in known:
            known[key] = tuple(itertools.compress(names, ~gaps))
        yield known[key], row[~gaps]


def _present_vectors(vectors: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {
        name: values[row] for name, values in vectors.items() if not np.isnan(values[row]).all()
    }


@final
class SelfMetrics:
    """What logging costs: metrics `lerax_dist/*`, in a row every 10 seconds.

    - `lerax_dist/callback_ms`: what a row has cost the thread that logged it, in milliseconds: the
      host callback of a compiled step, or `Logger.log`.
    - `lerax_dist/share_of_step`: the same as a fraction of the time that passed, from 0 to 1.
    - `lerax_dist/queue_rows`: messages with rows in the queue.
    - `lerax_dist/lag/<Backend>`: records of the journal that the backend has not received yet;
      infinite if it failed to open.

    Args:
        queue: the queue of rows.
        lags: name of each backend to the number of records that it lags behind.
        clock: seconds of a monotonic clock.
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

    def due(self) -> dict[str, np.float64]:
        """What to add to a row; empty most of the time."""
        now = self._clock()
        if self._last is None:
            # From the first row on: before it the step is compiled.
            self._last, (self._calls, self._seconds, _) = now, self._queue.usage()
        passed = now - self._last
        if passed < _SELF_INTERVAL:
            return {}
        calls, seconds, waiting = self._queue.usage()
        cost = seconds - self._seconds
        found = {"queue_rows": float(waiting), "share_of_step": cost / passed}
        if calls > self._calls:
            found["callback_ms"] = 1000.0 * cost / (calls - self._calls)
        found |= {f"lag/{name}": lag for name, lag in self._lags().items()}
        self._last, self._calls, self._seconds = now, calls, seconds
        return {f"lerax_dist/{name}": np.float64(value) for name, value in found.items()}
