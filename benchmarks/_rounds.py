"""Variants in turn, round after round: what a busy machine does to one it does to all."""

import random
from collections.abc import Callable, Mapping

from benchmarks._result import over_rounds


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round. The first round only warms up.

    Args:
        variants: name to what runs it and returns the seconds of an iteration.
        rounds: how many rounds count.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        # In random order, the same on every process: a variant that always follows the same one
        # always finds the same caches.
        for name in random.Random(number).sample(names, len(names)):
            took = variants[name]()
            if number > 0:
                seconds[name].append(took)
    return seconds


def added(seconds: Mapping[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Milliseconds that a variant adds to an iteration, compared within each round."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return over_rounds([1000 * (mine - other) for mine, other in pairs])


def share(seconds: Mapping[str, list[float]], name: str, base: str) -> dict[str, float]:
    """What a variant adds as a percentage of the iteration without it."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return over_rounds([100 * (mine / other - 1) for mine, other in pairs])
