"""Curves as text: a line chart in braille characters, and sparklines. Pure."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Steps in any order, and values; a value that is not finite is a gap."""
Cell: TypeAlias = tuple[str, int]
"""A character, and the number of the curve that it belongs to; -1 for none."""

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a braille cell, two columns of four, by row and column (Unicode, U+2800)."""
_LEVELS = "▁▂▃▄▅▆▇█"
_CHARACTERS = np.array([*_LEVELS, " ", "×"])
_ABSENT, _NOT_FINITE = 8, 9


def bounds(curves: Sequence[Curve]) -> tuple[float, float, float, float]:
    """First and last step, lowest and highest value of curves; zeros if all are empty."""
    steps, values = (np.concatenate(each) for each in zip(*curves, strict=True))
    finite = values[np.isfinite(values)]
    first, last = (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 0.0)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    return first, last, low, low if bool(_is_constant(low, high)) else high


def draw_curves(curves: Sequence[Curve], width: int, height: int) -> list[list[Cell]]:
    """Curves over each other, on one scale that all of them fill, as rows of cells.

    Where two curves share a cell, the later one has its color.
    """
    first, last, low, high = bounds(curves)
    bits = [[_BLANK] * width for _ in range(height)]
    owners = [[-1] * width for _ in range(height)]
    for owner, curve in enumerate(curves):
        previous: int | None = None
        for x, value in enumerate(resample(curve, 2 * width, first, last)):
            if not math.isfinite(value):
                previous = None
                continue
            y = _dot_row(value, low, high, 4 * height)
            # Up to the neighbor's height, so that a steep rise is a line and not two dots.
            before = y if previous is None else previous
            for dot in range(min(y, before + 1), max(y, before - 1) + 1):
                bits[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
                owners[dot // 4][x // 2] = owner
            previous = y
    return [
        list(zip(map(chr, line), row, strict=True)) for line, row in zip(bits, owners, strict=True)
    ]


def resample(curve: Curve, count: int, first: float, last: float) -> list[float]:
    """A curve as `count` columns from one step to another.

    A column is the mean of the values that fall into it; between values it is on the line from
    one to the next. It is a gap (NaN) outside of the curve and where values are not finite.
    """
    order = np.argsort(curve[0], kind="stable")
    steps, values = curve[0][order], curve[1][order]
    columns = np.full(count, np.nan)
    if not len(steps):
        return columns.tolist()
    if first == last:
        finite = values[np.isfinite(values)]
        return [float(finite[-1]) if len(finite) else math.nan] * count
    positions = (steps - first) * ((count - 1) / (last - first))
    breaks = np.flatnonzero(np.diff(np.isfinite(values))) + 1
    for part in np.split(np.arange(len(values)), breaks):
        if np.isfinite(values[part[0]]):
            _fill(columns, positions[part], values[part])
    return columns.tolist()


def _fill(columns: np.ndarray, positions: np.ndarray, values: np.ndarray) -> None:
    nearest = np.rint(positions).astype(np.intp)
    between = np.arange(nearest[0], nearest[-1] + 1)
    columns[between] = np.interp(between, positions, values)
    counts = np.bincount(nearest, minlength=len(columns))
    means = np.bincount(nearest, values / counts[nearest], minlength=len(columns))
    several = counts > 1
    columns[several] = means[several]


def _dot_row(value: float, low: float, high: float, rows: int) -> int:
    if high == low:
        return rows // 2
    # Halved first: the difference of two large values may be more than a float holds.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return min(rows - 1, max(0, round((1 - share) * (rows - 1))))


def draw_sparklines(points: np.ndarray) -> list[str]:
    """A sparkline for each metric, from its lowest to its highest value.

    Args:
        points: a row for each character, a column for each metric; NaN where a metric has no value
            (shown as the one before), infinite where it was not finite (shown as `×`).
    """
    if not len(points):
        return [""] * points.shape[1]
    # For each point the index of the last one up to it that has a value.
    latest = np.where(np.isnan(points), 0, np.arange(len(points))[:, None])
    points = np.take_along_axis(points, np.maximum.accumulate(latest, axis=0), axis=0)
    finite = np.isfinite(points)
    low = np.min(np.where(finite, points, np.inf), axis=0)
    high = np.max(np.where(finite, points, -np.inf), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Halved first: the difference of two large values may be more than a float holds.
        share = (points / 2 - low / 2) / (high / 2 - low / 2)
        constant = _is_constant(low, high)
    level = np.where(finite & ~constant, share, 0.0) * (len(_LEVELS) - 1)
    codes = np.rint(level).astype(np.intp)
    codes[np.isnan(points)] = _ABSENT
    codes[np.isinf(points)] = _NOT_FINITE
    return ["".join(column) for column in _CHARACTERS[codes].T]


def _is_constant(low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray | np.bool:
    """Whether two values differ by rounding only, as means of a constant do."""
    return high / 2 - low / 2 <= 1e-9 * np.maximum(np.abs(low), np.abs(high))
