"""How far a run is and how long it will take. Time comes in as an argument."""

import math
from typing import final

_MIN_SPAN = 1.0
"""Seconds of rows before a rate is shown: rows of one batch arrive together."""


@final
class Progress:
    """Step, rate and time of a run.

    The rate counts from the first row on, not from step 0 and the start: a resumed run does not
    claim the steps of its predecessor, and compilation before the first row does not slow it.

    Attributes:
        total: steps that the run will take, 0 if unknown.
        step: step of the last row, `None` before the first.

    Args:
        now: present time in seconds, of any clock that never goes back.
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
        self.total = total
        self._start = now
        self._first = None

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

        Args:
            finished: whether the run has ended without an error.
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


def format_percent(share: float) -> str:
    """A share as a percentage, rounded down: only a complete run shows 100.0%."""
    return f"{math.floor(share * 1000) / 10:.1f}%"
