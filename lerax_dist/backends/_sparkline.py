"""Sparklines: the course of a metric in a few characters, all metrics at once. Pure."""

import numpy as np

_LEVELS = "▁▂▃▄▅▆▇█"
_ABSENT, _BROKEN = " ", "×"
_CHARACTERS = np.array([*_LEVELS, _ABSENT, _BROKEN])


def draw_sparklines(points: np.ndarray, width: int) -> list[str]:
    """A sparkline for each metric, from its own lowest to its own highest value.

    Args:
        points: a row a point, a column a metric; NaN where a metric did not come, infinite where
            it was not finite (shown as `×`).
        width: most characters; with fewer points it is as long as there are points.

    Returns:
        As many texts as there are metrics.
    """
    if not len(points):
        return [""] * points.shape[1]
    binned = _binned(points, width)
    finite = np.isfinite(binned)
    low = np.min(np.where(finite, binned, np.inf), axis=0)
    high = np.max(np.where(finite, binned, -np.inf), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Halved first: the difference of two large values may be more than a float holds.
        share = (binned / 2 - low / 2) / (high / 2 - low / 2)
        # What is left of a constant once it was averaged is no course.
        constant = high / 2 - low / 2 <= 1e-9 * np.maximum(abs(low), abs(high))
    level = np.where(finite & ~constant, share, 0.0) * (len(_LEVELS) - 1)
    codes = np.rint(level).astype(np.intp)
    codes[np.isnan(binned)] = _CHARACTERS.tolist().index(_ABSENT)
    codes[np.isinf(binned)] = _CHARACTERS.tolist().index(_BROKEN)
    return ["".join(column) for column in _CHARACTERS[codes].T]


def _binned(points: np.ndarray, width: int) -> np.ndarray:
    """Means over even stretches; a metric that comes now and then keeps its value in between."""
    if len(points) > width:
        starts = np.arange(width) * len(points) // width
        finite = np.isfinite(points)
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduceat(np.where(finite, points, 0.0), starts, axis=0)
            count = np.add.reduceat(finite, starts, axis=0, dtype=np.intp)
            mean = total / np.maximum(count, 1)
        broken = np.logical_or.reduceat(np.isinf(points), starts, axis=0)
        points = np.where(count > 0, mean, np.where(broken, np.inf, np.nan))
    there = np.where(np.isnan(points), 0, np.arange(len(points))[:, None])
    return np.take_along_axis(points, np.maximum.accumulate(there, axis=0), axis=0)
