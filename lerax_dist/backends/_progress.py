"""How far the run is and how long it will take. Time comes in as an argument."""

from typing import final


@final
class Progress:
    """Step, speed and time of a run.

    Speed counts from the first row on, not from step 0 and the start: a resumed run does not
    claim the steps of its predecessor, nor does compilation before the first row slow the estimate.

    Attributes:
        total: steps that the run will take, 0 if unknown.
        step: step of the last row, `None` before the first.

    Args:
        now: present time in seconds, of any clock that never goes back.
    """

    _ENOUGH = 1.0
    """Seconds of rows before a speed is told: rows that rode together arrive together."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self.step: int | None = None
        self._start = now
        self._first: tuple[int, float] | None = None
        self._last = now

    def begin(self, total: int, now: float) -> None:
        """Training starts now and will take `total` steps, 0 if unknown."""
        self.total = total
        self._start = now
        self._first = None

    def advance(self, step: int, now: float) -> None:
        """A row has come."""
        if self._first is None or step < self._first[0]:
            self._first = (step, now)
        self.step = step
        self._last = now

    @property
    def share(self) -> float | None:
        """Part of the run that is done, from 0 to 1; `None` if its length is unknown."""
        if self.total <= 0:
            return None
        return min(1.0, max(0.0, (self.step or 0) / self.total))

    @property
    def rate(self) -> float | None:
        """Steps a second; `None` while too little has been seen."""
        if self._first is None or self.step is None:
            return None
        first, since = self._first
        if self._last - since < self._ENOUGH or self.step <= first:
            return None
        return (self.step - first) / (self._last - since)

    def elapsed(self, now: float) -> float:
        """Seconds since the start."""
        return now - self._start

    def remaining(self, now: float) -> float | None:
        """Seconds to the end; `None` if nobody knows."""
        rate = self.rate
        if rate is None or self.share is None or self.step is None:
            return None
        return max(0.0, (self.total - self.step) / rate - (now - self._last))
