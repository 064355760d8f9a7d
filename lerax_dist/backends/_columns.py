"""Metrics in columns, grouped by what stands before the slash. Pure."""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from rich.cells import cell_len, set_cell_size

Piece: TypeAlias = tuple[str, str]
"""Text and its style."""
Line: TypeAlias = list[Piece]


class Item(NamedTuple):
    """A row of a column: a metric.

    Attributes:
        name: its name.
        value: its value as text.
        style: style of the value.
        change: what was added to it, as text.
        spark: its course.
        colour: style of that.
    """

    name: str
    value: str
    style: str = ""
    change: str = ""
    spark: str = ""
    colour: str = "dim cyan"


Group: TypeAlias = tuple[str, list[Item]]
"""A title, and what is under it."""

_GAP = 4
_VALUE_WIDTH = 9
_CHANGE_WIDTH = 9
"""Columns kept at least, so that the layout keeps still while values change."""
_SHORTEST_NAME = 14
"""Names are cut to no less before other things are left out."""


def group_items(items: Iterable[Item]) -> list[Group]:
    """Items by prefix, prefixes in order of first appearance: `train/loss` is `loss` in `train`."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        prefix, slash, rest = item.name.partition("/")
        groups.setdefault(prefix if slash else "", []).append(
            item._replace(name=rest) if slash else item
        )
    return list(groups.items())


def fit_columns(groups: list[Group], width: int, height: int, aim: int) -> list[Line]:
    """The groups in as few columns as give at most `aim` rows, if the width has room for them.

    Sparklines, and then changes, are left out where that makes room for every metric.

    Args:
        groups: what to show.
        width: columns of the terminal there are.
        height: rows there are; what does not fit is counted in the last.
        aim: rows it may take before another column is begun.
    """
    if not groups or height < 1:
        return []
    narrow: list[Line] | None = None
    for shown in (groups, _without(groups, "spark"), _without(groups, "spark", "change")):
        columns = _arranged(shown, width, min(aim, height))
        wide_enough = _least_width(columns) <= width
        if wide_enough and _tallest(columns) <= height:
            return _beside(columns, width)
        if narrow is None and (wide_enough or shown[0][1][0].change == ""):
            # Where not all can be shown, the first metrics with all there is to them.
            narrow = _cut_short(shown, width, height, len(columns))
    return narrow or []


_Cell: TypeAlias = Item | str
"""An item, or a title; an empty title is a blank row."""
_Column: TypeAlias = list[_Cell]


class _Widths(NamedTuple):
    names: int
    values: int
    changes: int
    sparks: int

    @property
    def total(self) -> int:
        extra = sum(2 + width for width in (self.changes, self.sparks) if width)
        return 4 + self.names + self.values + extra


def _without(groups: list[Group], *fields: str) -> list[Group]:
    blank = dict.fromkeys(fields, "")
    return [(title, [item._replace(**blank) for item in items]) for title, items in groups]


def _arranged(groups: list[Group], width: int, aim: int) -> list[_Column]:
    columns = _balanced(groups, 1)
    count = 1
    while _tallest(columns) > aim:
        count += 1
        more = _balanced(groups, count)
        if _total_width(more) > width or _tallest(more) >= _tallest(columns):
            break
        columns = more
    return columns


def _cut_short(groups: list[Group], width: int, height: int, count: int) -> list[Line]:
    shown = _flow(groups, max(1, height - 1))[:count]
    while len(shown) > 1 and _total_width(shown) > width:
        shown.pop()
    shown = [column[: max(1, height - 1)] for column in shown]
    there = sum(len(items) for _, items in groups)
    hidden = there - sum(isinstance(cell, Item) for column in shown for cell in column)
    return [*_beside(shown, width), [(fit(f"{hidden} more in a larger window", width), "dim")]]


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
        head: _Column = [title] if title else []
        needed = min(rows, len(head) + len(items))
        if columns[-1] and len(columns[-1]) + 1 + needed > rows:
            columns.append([])
        if columns[-1]:
            columns[-1].append("")
        columns[-1].extend(head)
        for item in items:
            if len(columns[-1]) >= max(rows, len(head) + 1):
                columns.append([f"{title} ..."] if title else [])
            columns[-1].append(item)
    return columns


def _tallest(columns: list[_Column]) -> int:
    return max(len(column) for column in columns)


def _widths(column: _Column) -> _Widths:
    items = [cell for cell in column if isinstance(cell, Item)]
    changes = max((len(item.change) for item in items), default=0)
    return _Widths(
        max((cell_len(item.name) for item in items), default=0),
        max(_VALUE_WIDTH, *(cell_len(item.value) for item in items), 0),
        max(_CHANGE_WIDTH, changes) if changes else 0,
        max((len(item.spark) for item in items), default=0),
    )


def _total_width(columns: list[_Column]) -> int:
    return sum(_widths(column).total for column in columns) + _GAP * (len(columns) - 1)


def _least_width(columns: list[_Column]) -> int:
    """The width with names cut short, if there is one column only."""
    if len(columns) > 1:
        return _total_width(columns)
    widths = _widths(columns[0])
    return widths._replace(names=min(widths.names, _SHORTEST_NAME)).total


def _beside(columns: list[_Column], width: int) -> list[Line]:
    """Rows of the columns side by side; a single one may have to cut its names short."""
    lines: list[Line] = [[] for _ in range(_tallest(columns))]
    for index, column in enumerate(columns):
        widths = _widths(column)
        if len(columns) == 1:
            room = width - (widths.total - widths.names)
            widths = widths._replace(names=max(4, min(widths.names, room)))
        for row, line in enumerate(lines):
            if index:
                line.append((" " * _GAP, ""))
            line.extend(_pieces(column[row] if row < len(column) else "", widths))
    return lines


def _pieces(cell: _Cell, widths: _Widths) -> Line:
    if isinstance(cell, str):
        return [(fit(cell, widths.total), "bold cyan")]
    line = [
        (f"  {fit(cell.name, widths.names)}  ", ""),
        (cell.value.rjust(widths.values), cell.style),
    ]
    if widths.changes:
        line.append(("  " + cell.change.ljust(widths.changes), "dim"))
    if widths.sparks:
        line.append(("  " + cell.spark.ljust(widths.sparks), cell.colour))
    return line


def beside(left: list[Line], right: list[Line], column: int) -> list[Line]:
    """Lines side by side, the right ones from a column on."""
    lines: list[Line] = []
    for row in range(max(len(left), len(right))):
        line = left[row] if row < len(left) else []
        if row < len(right):
            line = [*line, (" " * (column - width_of(line)), ""), *right[row]]
        lines.append(line)
    return lines


def width_of(line: Line) -> int:
    """Columns of the terminal that a line takes."""
    return sum(cell_len(text) for text, _ in line)


def fit(text: str, width: int) -> str:
    """Text cut or padded to `width` columns of the terminal, without control characters."""
    text = "".join(char if char.isprintable() else "?" for char in text)
    if cell_len(text) > width:
        return set_cell_size(text, max(0, width - 1)) + "…" * min(1, width)
    return set_cell_size(text, width)
