"""How fast the run is, from one row to the next. Pure: time comes in as an argument."""

import math
from typing import NamedTuple

# What `advance` gives: global steps a second, and seconds an iteration.
NAMES = ("time/steps_per_second", "time/iteration_seconds")


class Rates(NamedTuple):
    """The last row.

    Attributes:
        clock: when it came, in seconds of a monotonic clock; `None` before the first.
        step: its global step; `None` if unknown.
        iteration: its iteration.
    """

    clock: float | None = None
    step: int | None = None
    iteration: int = 0


def start(clock: float, iteration: int) -> Rates:
    """Training starts after `iteration` iterations; a fresh one starts at step 0."""
    return Rates(clock, 0 if iteration == 0 else None, iteration)


def moment(rates: Rates, clock: float, iteration: int, last: int) -> float:
    """When an iteration was done whose row came in one message with those up to `last`.

    The rows of a message are spread evenly over the time since the row before them, which is all
    that can be known without asking the devices more often.

    Args:
        rates: the row before.
        clock: when the message came.
        iteration: number of the row's iteration.
        last: number of the last row's iteration in the message.
    """
    if rates.clock is None or last <= rates.iteration or clock <= rates.clock:
        return clock
    share = (iteration - rates.iteration) / (last - rates.iteration)
    return rates.clock + (clock - rates.clock) * min(max(share, 0.0), 1.0)


def advance(
    rates: Rates, clock: float, step: int, iteration: int
) -> tuple[Rates, tuple[float, float]]:
    """A row comes.

    Returns:
        The new state, and what `NAMES` says, since the row before; NaN where there is nothing to
        compare with.
    """
    steps_per_second = iteration_seconds = math.nan
    if rates.clock is not None and clock > rates.clock and iteration > rates.iteration:
        seconds = clock - rates.clock
        if rates.step is not None and step >= rates.step:
            steps_per_second = (step - rates.step) / seconds
        iteration_seconds = seconds / (iteration - rates.iteration)
    return Rates(clock, step, iteration), (steps_per_second, iteration_seconds)
