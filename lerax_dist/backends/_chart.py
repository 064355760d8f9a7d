"""A line chart in braille characters: two dots by four in each cell of the terminal."""

import math
from collections.abc import Sequence

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a braille cell, by row and column."""


def draw_line(values: Sequence[float], width: int, height: int) -> list[str]:
    """The curve through `values`, from its lowest to its highest value, over the whole width.

    Args:
        values: heights of the curve at even distances; non-finite ones are gaps.
        width: columns of the chart.
        height: rows of the chart.

    Returns:
        `height` strings of `width` characters.
    """
    cells = [[_BLANK] * width for _ in range(height)]
    columns = resample(values, 2 * width)
    finite = [value for value in columns if math.isfinite(value)]
    if not finite:
        return ["".join(map(chr, row)) for row in cells]
    low, high = min(finite), max(finite)
    previous: int | None = None
    for x, value in enumerate(columns):
        if not math.isfinite(value):
            previous = None
            continue
        y = _dot_row(value, low, high, 4 * height)
        for dot in _span(previous, y):
            cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        previous = y
    return ["".join(map(chr, row)) for row in cells]


def resample(values: Sequence[float], count: int) -> list[float]:
    """`values` as `count` columns: means of several where there are more, lines between if fewer.

    A column is a gap (NaN) if no finite value falls into it.
    """
    if len(values) == 1:
        return [values[0]] * count
    if len(values) <= count:
        return [_between(values, x * (len(values) - 1) / (count - 1)) for x in range(count)]
    edges = [x * len(values) // count for x in range(count + 1)]
    return [_finite_mean(values[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _between(values: Sequence[float], position: float) -> float:
    if not values:
        return math.nan
    index = min(int(position), len(values) - 2)
    part = position - index
    if part == 0.0:
        return values[index]
    if part == 1.0:
        return values[index + 1]
    return values[index] * (1 - part) + values[index + 1] * part


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _dot_row(value: float, low: float, high: float, rows: int) -> int:
    if high == low:
        return rows // 2
    # Halved first: the difference of two large values may be more than a float holds.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return round((1 - share) * (rows - 1))


def _span(previous: int | None, y: int) -> range:
    # Filled up to the neighbour's height, so that a steep rise is a line and not two dots.
    if previous is None or previous == y:
        return range(y, y + 1)
    return range(y, previous) if y < previous else range(previous + 1, y + 1)
