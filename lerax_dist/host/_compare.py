"""Plain values of a run of one program, compared between its processes by a sample.

A process that does not write sends a few values a second at most (`Sampler`). Process 0 keeps some
of its own rows and looks the step up among them (`Comparer`). Neither counts calls: a process may
log more rows than another. No thread.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures

# Processes from here on send no samples: that many cost as much as a thousand.
MAX_COMPARED = 16
# Values of a sample: some 3 KB, which MPI takes at once.
_MAX_VALUES = 64
# Seconds between two samples of rows with the same names, at first and in the long run.
_FIRST_INTERVAL = 1.0
_LAST_INTERVAL = 64.0
# Seconds between two samples of any rows, on average over that long.
_MIN_INTERVAL = 0.25
_BURST = 2.0
# Rows with names made of data; more are new ones.
_MAX_LAYOUTS = 32
# How long process 0 keeps a row that is sampled, at least, in seconds.
_KEPT_SECONDS = 3.0
# Rows that process 0 keeps of each rank, and steps whose samples wait for its row.
_MAX_KEPT = 64
_MAX_WAITING = 256
# Metrics of a row that is kept whole; of more only those that are sampled are kept.
_MAX_WHOLE = 256
# Differences below this fraction are rounding.
_TOLERANCE = 1e-6


# Step, names, values.
_Row = tuple[int, tuple[str, ...], Sequence[float] | np.ndarray]


class Sample(NamedTuple):
    """Some values of a row of one process: those wanted among names and what `np.asarray` makes
    values of, perhaps after a wait."""

    process: int
    step: int
    wanted: tuple[str, ...]
    values: Sequence[tuple[tuple[str, ...], Any]]

    def read(self) -> dict[str, float]:
        """Names to values."""
        found: dict[str, float] = {}
        for names, some in self.values:
            # What `reduce` returned has more numbers than names.
            found |= zip(names, np.asarray(some, float).ravel().tolist(), strict=False)
        return {name: found[name] for name in self.wanted if name in found}


def rank(step: int) -> int:
    """The rank of a step: half of all steps have rank 0, a quarter has rank 1, and so on."""
    return 64 - _mixed(step).bit_length()


def _sampled(names: Sequence[str], step: int) -> slice:
    """Which metrics of a row are sampled."""
    first = _mixed(step) % max(len(names) - _MAX_VALUES + 1, 1)
    return slice(first, first + _MAX_VALUES)


def _mixed(step: int) -> int:
    """A number below 2**64 that looks random, the same in every process."""
    return step * 0x9E3779B97F4A7C15 & (1 << 64) - 1


@final
class Sampler:
    """Chooses what a process sends: by the step, among those that process 0 still keeps."""

    def __init__(self) -> None:
        # When rows with these names are due, and how long after that again.
        self._turns: dict[tuple[str, ...], tuple[float, float]] = {}
        self._begin = self._due = -math.inf
        self._rows = 0

    def choose(self, names: tuple[str, ...], step: int, now: float) -> tuple[str, ...]:
        """Names to send of a row; `now` is in seconds of a monotonic clock."""
        if not self._rows:
            self._begin = now
        self._rows += 1
        due, interval = self._turns.get(names, (now, _FIRST_INTERVAL))
        if now < max(due, self._due):
            return ()
        # Process 0 sees about as many rows, and keeps the last ones of each rank.
        rate = self._rows / max(now - self._begin, 1.0)
        if (2 << rank(step)) * _MAX_KEPT < rate * _KEPT_SECONDS:
            return ()
        if len(self._turns) >= _MAX_LAYOUTS and names not in self._turns:
            self._turns.clear()
        self._turns[names] = now + interval, min(2 * interval, _LAST_INTERVAL)
        self._due = max(self._due, now - _BURST) + _MIN_INTERVAL
        return names[_sampled(names, step)]


@final
class Comparer:
    """Compares samples with the rows of process 0, and reports each metric that differs once."""

    def __init__(self, describe: Callable[[int], str], failures: Failures) -> None:
        self._describe = describe
        self._failures = failures
        self._kept: dict[int, deque[_Row]] = {}
        self._waiting: dict[int, list[Sample]] = {}

    def put(self, step: int, names: tuple[str, ...], values: Sequence[float] | np.ndarray) -> None:
        """A row of process 0."""
        if len(names) > _MAX_WHOLE:
            part = _sampled(names, step)
            names, values = names[part], [*values[part]]
        kept = self._kept.setdefault(rank(step), deque(maxlen=_MAX_KEPT))
        kept.append((step, names, values))
        for sample in self._waiting.pop(step, ()):
            self.receive(sample)

    def receive(self, sample: Sample) -> None:
        """A sample of another process, before or after the row of process 0."""
        theirs = sample.read()
        missing = {*theirs}
        for step, names, values in self._kept.get(rank(sample.step), ()):
            if step == sample.step:
                missing.difference_update(names)
                self._compare(sample, theirs, dict(zip(names, values, strict=True)))
        if missing:
            self._waiting.setdefault(sample.step, []).append(sample)
            if len(self._waiting) > _MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]

    def _compare(self, sample: Sample, theirs: dict[str, float], mine: dict[str, float]) -> None:
        for name in theirs.keys() & mine.keys():
            own, other = mine[name], theirs[name]
            both_nan = math.isnan(own) and math.isnan(other)
            if not both_nan and not math.isclose(own, other, rel_tol=_TOLERANCE):
                self._failures.record(
                    "metrics",
                    f"{name!r} differs between processes: {own:.9g} on {self._describe(0)}, "
                    f"{other:.9g} on {self._describe(sample.process)}, at step {sample.step}; that "
                    "of process 0 is written. Merge it with a partial such as `Mean.of(...)` or "
                    "`Sum(...)`, `reduce` it in the step, or log it on process 0 only.",
                    kind=f"{name} differs",
                )
