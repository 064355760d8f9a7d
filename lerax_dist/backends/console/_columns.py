"""Metrics in columns, grouped by what is before the slash of their names.

One `Text` for a whole column, as Rich's time grows with the number of renderables: `Columns` of a
`Text` for each metric takes three times as long, of a `Table` for each metric twenty times.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.columns import Columns
from rich.text import Text

from lerax_dist.backends.console._view import printable

GAP = 4
"""Blanks between columns."""
TITLE_STYLE = "bold cyan"
_MIN_VALUE_WIDTH = _MIN_CHANGE_WIDTH = 9
"""So that the layout does not move while values change."""
_MIN_NAME_WIDTH = 14
"""Names are cut to no less before sparklines and changes are omitted."""


class Item(NamedTuple):
    """A line of a column: a metric or a hyperparameter.

    `extras` follow the value where there is room, each with its style: change and sparkline.
    """

    name: str
    value: str
    style: str = ""
    extras: tuple[tuple[str, str], ...] = ()


ItemGroup: TypeAlias = tuple[str, list[Item]]
"""A title, and what is below it."""
_Column: TypeAlias = list[Item | str]
"""Items and titles; an empty title is a blank line."""
_Sized: TypeAlias = list[tuple[_Column, list[int]]]
"""Columns, each with the widths of its fields."""


def group_items(items: Iterable[Item]) -> list[ItemGroup]:
    """Items by prefix, prefixes in order of first appearance: `train/loss` is `loss` in `train`."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        prefix, slash, rest = item.name.partition("/")
        title, name = (prefix, rest) if slash else ("", item.name)
        groups.setdefault(printable(title), []).append(item._replace(name=printable(name)))
    return list(groups.items())


def fit_columns(groups: Sequence[ItemGroup], width: int, height: int, aim: int) -> list[Text]:
    """The groups in as few columns as give at most `aim` lines, if the width has room for them.

    Sparklines, and then changes, are omitted where that makes room for every item. Where not all
    have room even so, each column is cut to `height` lines, and the missing items are counted.
    """
    if not groups or height < 1:
        return []
    cut: _Sized = []
    for extras in range(max(len(item.extras) for _, items in groups for item in items), -1, -1):
        columns = _arrange(groups, extras, width, min(aim, height))
        fits = _total_width(columns) <= width
        if fits and max(len(column) for column, _ in columns) <= height:
            return [_column_text(column, widths) for column, widths in columns]
        if not cut and (fits or not extras):
            cut = columns
    rows = max(1, height - 1)
    hidden = sum(isinstance(cell, Item) for column, _ in cut for cell in column[rows:])
    texts = [_column_text(column[:rows], widths) for column, widths in cut]
    if not hidden:  # the window is too narrow, and a larger one shows no more items
        return texts
    note = f"{hidden} more in a larger window"
    room = width if len(texts) == 1 else text_width(texts[0])
    texts[0].append("\n" + fit(note, min(len(note), room)), "dim")
    return texts


def _arrange(groups: Sequence[ItemGroup], extras: int, width: int, aim: int) -> _Sized:
    """Columns of about the same height: as few as have `aim` lines, or fewer if too wide."""
    lines = sum(len(items) + 1 for _, items in groups)
    narrowest = 5 + _MIN_VALUE_WIDTH + extras * (2 + _MIN_CHANGE_WIDTH)
    most = max(1, min(len(_flow(groups, aim)), (width + GAP) // (narrowest + GAP)))
    rows = max(1, lines // most - 1)
    while True:
        columns = _flow(groups, rows)
        if len(columns) <= most:
            sized = [(column, _widths(column, extras, width)) for column in columns]
            if len(sized) == 1 or _total_width(sized) <= width:
                return sized
        rows = max(rows + 1, lines // (len(columns) - 1))


def _flow(groups: Sequence[ItemGroup], rows: int) -> list[_Column]:
    """The groups one after the other in columns of `rows`; a longer group is split."""
    columns: list[_Column] = [[]]
    for title, items in groups:
        head: _Column = [title] if title else []
        if columns[-1] and len(columns[-1]) + 1 + min(rows, len(head) + len(items)) > rows:
            columns.append([])
        if columns[-1]:
            columns[-1].append("")
        columns[-1].extend(head)
        for item in items:
            if len(columns[-1]) >= max(rows, len(head) + 1):
                columns.append([f"{title} ..."] if title else [])
            columns[-1].append(item)
    return columns


def _widths(column: _Column, extras: int, width: int) -> list[int]:
    """Widths of a column's fields; names are cut where `width` has no room for the longest."""
    items = [cell for cell in column if isinstance(cell, Item)]
    values = max(_MIN_VALUE_WIDTH, *(cell_len(item.value) for item in items))
    others = [max(_MIN_CHANGE_WIDTH, *(len(i.extras[n][0]) for i in items)) for n in range(extras)]
    room = width - sum(2 + field for field in (0, values, *others))
    name = max(cell_len(item.name) for item in items)
    return [min(name, max(_MIN_NAME_WIDTH if extras else 4, room)), values, *others]


def _total_width(columns: _Sized) -> int:
    fields = sum(2 + field for _, widths in columns for field in widths)
    return fields + GAP * (len(columns) - 1)


def _column_text(column: _Column, widths: Sequence[int]) -> Text:
    text, width = line(), sum(2 + field for field in widths)
    for row, cell in enumerate(column):
        text.append("\n" if row else "")
        if isinstance(cell, str):
            text.append(fit(cell, min(cell_len(cell), width)), TITLE_STYLE)
            continue
        text.append(f"  {fit(cell.name, widths[0])}  ")
        text.append(cell.value.rjust(widths[1]), cell.style)
        for (extra, style), field in zip(cell.extras, widths[2:], strict=False):
            text.append("  " + extra.ljust(field), style)
    return text


def beside(texts: Sequence[Text]) -> Columns:
    """Texts side by side, if there is room."""
    return Columns(texts, padding=(0, GAP))


def fit(text: str, width: int) -> str:
    """Text cut or padded to `width` columns of the terminal."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + "…" * min(1, width)


def text_width(text: Text) -> int:
    """Columns of the terminal that a text takes."""
    return max(map(cell_len, text.plain.split("\n")))


def text_height(texts: Iterable[Text]) -> int:
    """Lines that texts side by side take."""
    return max((text.plain.count("\n") + 1 for text in texts), default=0)


def line(text: str = "", style: str = "") -> Text:
    """A text that Rich cuts at the window's edge."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")
