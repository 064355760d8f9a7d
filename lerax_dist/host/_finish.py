"""Merged shares become rows: with times and rates, without what is not there yet."""

import itertools
from collections.abc import Iterator, Sequence
from typing import final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.host import _rates
from lerax_dist.host._assemble import Share
from lerax_dist.host._sink import Finished
from lerax_dist.journal._record import Row


@final
class Finisher:
    """Makes rows, many at once, and knows how fast they come.

    Args:
        failures: where to keep which value was the first that is not finite.
    """

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._rates = _rates.Rates()

    def start(self, clock: float, iteration: int) -> None:
        """A training starts.

        Args:
            clock: seconds of a monotonic clock.
            iteration: iterations done before.
        """
        self._rates = _rates.start(clock, iteration)

    def rows(self, shares: Sequence[Share], finished: Finished) -> list[Row]:
        """The rows of shares of one format.

        Args:
            shares: in their order.
            finished: what their format has made of their totals.
        """
        names, steps, values, absent = finished
        self._check(names, steps, values, absent)
        times: list[float] = [share.time for share in shares]
        iterations: list[int | None] = [None] * len(shares)
        if shares[0].clock is not None:
            iterations = [share.number for share in shares]
            rates = np.array([self._rate(*each) for each in zip(shares, steps, strict=True)])
            times = (times - rates[:, -1]).tolist()
            missing = np.isnan(rates[:, :-1])
            for column, name in enumerate(_rates.NAMES):
                # A metric of the user's that goes by such a name makes room for ours.
                if name in names:
                    absent[:, names.index(name)] |= ~missing[:, column]
            absent = np.hstack([absent, missing])
            names, values = names + _rates.NAMES, np.hstack([values, rates[:, :-1]])
        heads = zip(times, steps, iterations, strict=True)
        there = zip(heads, _there(names, values, absent), strict=True)
        return [Row(*head, *metrics) for head, metrics in there]

    def _rate(self, share: Share, step: int) -> tuple[float, float, float]:
        """What `_rates.NAMES` says of a row, and how long before its message it was done."""
        assert share.clock is not None
        clock = _rates.moment(self._rates, share.clock, share.number, share.last)
        self._rates, rates = _rates.advance(self._rates, clock, step, share.number)
        return *rates, share.clock - clock

    def _check(
        self, names: tuple[str, ...], steps: list[int], values: np.ndarray, absent: np.ndarray
    ) -> None:
        """Tell of the first value that is not finite."""
        strange = ~(np.isfinite(values) | absent)
        if strange.any():
            row, column = np.argwhere(strange)[0]
            self._failures.record(
                "metrics",
                f"{names[column]!r} is {values[row, column]} at step {steps[row]}, the first "
                "value that is not finite",
                kind="not finite",
            )


def _there(
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
