"""Metrics in columns, grouped by what stands before the slash."""

from collections.abc import Mapping
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size

Piece: TypeAlias = tuple[str, str]
"""Text and its style."""
Line: TypeAlias = list[Piece]
Group: TypeAlias = tuple[str, list[tuple[str, str, str]]]
"""A title, and under it names, values and the values' styles."""

_GAP = 3
_VALUE_WIDTH = 9
"""Columns kept for a value at least, so that the layout keeps still while values change."""


def group_names(values: Mapping[str, tuple[str, str]]) -> list[Group]:
    """Names by prefix, prefixes in order of first appearance: `train/loss` is `loss` in `train`.

    Args:
        values: name to value as text, and the style of the value.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for name, (value, style) in values.items():
        prefix, slash, rest = name.partition("/")
        title = prefix if slash else ""
        groups.setdefault(title, []).append((rest if slash else name, value, style))
    return list(groups.items())


def fit_columns(groups: list[Group], width: int, height: int, aim: int) -> list[Line]:
    """The groups in as few columns as give at most `aim` rows, if the width has room for them.

    Args:
        groups: what to show.
        width: columns of the terminal there are.
        height: rows there are; what does not fit is counted in the last.
        aim: rows it may take before another column is begun.
    """
    if not groups or height < 1:
        return []
    count = 1
    columns = _balanced(groups, count)
    while _tallest(columns) > min(aim, height):
        count += 1
        more = _balanced(groups, count)
        if _total_width(more) > width or _tallest(more) >= _tallest(columns):
            break
        columns = more
    if _tallest(columns) <= height:
        return _beside(columns, width)
    shown = _flow(groups, max(1, height - 1))[: len(columns)]
    while len(shown) > 1 and _total_width(shown) > width:
        shown.pop()
    shown = [column[: max(1, height - 1)] for column in shown]
    there = sum(len(items) for _, items in groups)
    hidden = there - sum(len(cell) == 3 for column in shown for cell in column)
    return [*_beside(shown, width), [(fit(f"{hidden} more in a larger window", width), "dim")]]


_Cell: TypeAlias = tuple[str, ...]
"""Three texts are an item, one is a title, none is a blank row."""
_Column: TypeAlias = list[_Cell]


def _balanced(groups: list[Group], count: int) -> list[_Column]:
    """The groups in at most `count` columns of about the same height."""
    rows = max(2, sum(len(items) + 1 for _, items in groups) // count)
    while len(columns := _flow(groups, rows)) > count:
        rows += 1
    return columns


def _flow(groups: list[Group], rows: int) -> list[_Column]:
    """The groups one after the other in columns of `rows`; one that is longer is split."""
    columns: list[_Column] = [[]]
    for title, items in groups:
        head: _Column = [(title,)] if title else []
        needed = min(rows, len(head) + len(items))
        if columns[-1] and len(columns[-1]) + 1 + needed > rows:
            columns.append([])
        if columns[-1]:
            columns[-1].append(())
        columns[-1].extend(head)
        for item in items:
            if len(columns[-1]) >= max(rows, len(head) + 1):
                columns.append([(f"{title} ...",)] if title else [])
            columns[-1].append(item)
    return columns


def _tallest(columns: list[_Column]) -> int:
    return max(len(column) for column in columns)


def _widths(column: _Column) -> tuple[int, int]:
    """Widths of names and of values."""
    items = [cell for cell in column if len(cell) == 3]
    values = max(_VALUE_WIDTH, *(cell_len(cell[1]) for cell in items), 0)
    return max((cell_len(cell[0]) for cell in items), default=0), values


def _total_width(columns: list[_Column]) -> int:
    widths = [4 + sum(_widths(column)) for column in columns]
    return sum(widths) + _GAP * (len(columns) - 1)


def _beside(columns: list[_Column], width: int) -> list[Line]:
    """Rows of the columns side by side; a single one may have to cut its names short."""
    lines: list[Line] = [[] for _ in range(_tallest(columns))]
    for index, column in enumerate(columns):
        names, values = _widths(column)
        if len(columns) == 1:
            names = max(4, min(names, width - values - 4))
        for row, line in enumerate(lines):
            if index:
                line.append((" " * _GAP, ""))
            line.extend(_pieces(column[row] if row < len(column) else (), names, values))
    return lines


def _pieces(cell: _Cell, names: int, values: int) -> Line:
    if len(cell) == 3:
        name, value, style = cell
        return [(f"  {fit(name, names)}  ", ""), (value.rjust(values), style)]
    return [(fit("".join(cell), 4 + names + values), "bold cyan")]


def fit(text: str, width: int) -> str:
    """Text cut or padded to `width` columns of the terminal, without control characters."""
    text = "".join(char if char.isprintable() else "?" for char in text)
    if cell_len(text) > width:
        return set_cell_size(text, max(0, width - 1)) + "…" * min(1, width)
    return set_cell_size(text, width)
