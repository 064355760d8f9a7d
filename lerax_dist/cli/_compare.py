"""What a terminal shows of several runs side by side. Pure."""

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lerax_dist.backends._format import format_value
from lerax_dist.backends.console._columns import (
    GAP,
    Item,
    beside,
    fit,
    group_items,
    text_height,
    text_width,
)
from lerax_dist.backends.console._draw import (
    MIN_CHART_HEIGHT,
    SPARK_WIDTH,
    describe_progress,
    draw_chart,
    progress_bar,
    sparklines,
    state_text,
)
from lerax_dist.backends.console._view import RunView, chosen_metric, printable

_COLORS = ("green", "yellow", "magenta", "blue", "red", "cyan")
_MAX_LABEL_WIDTH = 26
_VALUE_WIDTH = 11
_MIN_CHART_WIDTH = 36
# A run, whose lock the caller holds, and the present time in seconds, or that of its end.
_Run = tuple[RunView, float]


def compare(runs: Sequence[_Run], wanted: str, width: int, height: int | None) -> RenderableType:
    """All that is shown of several runs, for a `Frame` of the same size.

    Args:
        runs: the runs, each drawn in another color.
        wanted: metric to draw.
        width: columns of the window.
        height: rows of the window; `None` for no limit.
    """
    notes = [note for view, _ in runs for note in _notes(view)]
    head = Group(_headings(runs, width), *notes)
    room = 10_000 if height is None else height - len(runs) - len(notes) - 1
    names = list(dict.fromkeys(name for view, _ in runs for name in view.latest))
    if not names:
        return head
    name = chosen_metric(names, wanted)
    columns = _columns(runs, names, width, room)
    if name is None or room < MIN_CHART_HEIGHT:
        return Group(head, "", beside(columns))
    curves = [(view.history.curve(name), _color(number)) for number, (view, _) in enumerate(runs)]
    free, rows = width - sum(text_width(column) + GAP for column in columns), text_height(columns)
    if free >= _MIN_CHART_WIDTH:
        chart = draw_chart(name, curves, min(90, free), min(room, max(9, min(14, rows))))
        return Group(head, "", beside([*columns, chart]))
    left_over = min(10, max(room // 3, room - rows - 1))
    if left_over < MIN_CHART_HEIGHT:
        return Group(head, "", beside(columns))
    chart = draw_chart(name, curves, min(76, width), left_over)
    columns = _columns(runs, names, width, room - left_over - 1)
    return Group(head, "", beside(columns), "", chart)


def _headings(runs: Sequence[_Run], width: int) -> Table:
    """A line for each run: state and progress, as much of it as the width has room for."""
    rows: list[list[tuple[int, RenderableType]]] = []
    bar = 26 if width >= 120 else 18
    for number, (view, now) in enumerate(runs):
        label = fit(printable(view.name), min(_MAX_LABEL_WIDTH, max(8, width // 3)))
        texts = [Text.assemble(("● ", _color(number)), (label, "bold")), state_text(view.state)]
        row: list[tuple[int, RenderableType]] = [(text.cell_len, text) for text in texts]
        row.append((0, "") if view.share is None else (bar, progress_bar(view.share)))
        if view.state != "waiting":
            row += [(text.cell_len, text) for text in describe_progress(view, now)]
        rows.append(row)
    count = max(map(len, rows))
    widths = [max(row[i][0] for row in rows if i < len(row)) for i in range(count)]
    while sum(widths) + 2 * len(widths) > width:
        widths.pop()
    grid = Table.grid(padding=(0, 2, 0, 0))
    for column in widths:
        grid.add_column(width=column, no_wrap=True)
    for row in rows:
        grid.add_row(*(cell for _, cell in row[: len(widths)]))
    return grid


def _notes(view: RunView) -> list[Text]:
    label = printable(view.name)
    return [
        Text(f"  {label}: {printable(note)}", "yellow", no_wrap=True, overflow="ellipsis")
        for note in view.notes
    ]


def _columns(runs: Sequence[_Run], names: Sequence[str], width: int, room: int) -> list[Text]:
    """A line for each metric, a column for each run; with sparklines if they have room."""
    groups = group_items(Item(name, name) for name in names)
    longest = max(cell_len(item.name) for _, items in groups for item in items)
    first = min(max(longest, 10), 28, max(8, width - len(runs) * (_VALUE_WIDTH + GAP)))
    each = _VALUE_WIDTH
    if first + 2 + len(runs) * (GAP + _VALUE_WIDTH + 2 + SPARK_WIDTH) <= width:
        each += 2 + SPARK_WIDTH
    # A title or the name of a metric, by the metric's full name.
    lines: list[tuple[str, str | None]] = []
    for title, items in groups:
        lines += [(title, None)] if title else []
        lines += [(item.name, item.value) for item in items]
    kept = len(lines) if len(lines) < room else max(0, room - 2)
    left = Text(" " * (first + 2), no_wrap=True)
    for label, name in lines[:kept]:
        left.append("\n")
        left.append(fit(f"  {label}" if name else label, first + 2), "" if name else "bold cyan")
    hidden = sum(name is not None for _, name in lines[kept:])
    if hidden:
        left.append(f"\n+{hidden} more", "dim")
    most = max(1, (width - first - 2) // (each + GAP))
    values = [name for _, name in lines[:kept]]
    return [left, *(_values(i, runs[i][0], values, each) for i in range(min(most, len(runs))))]


def _values(number: int, view: RunView, names: Sequence[str | None], width: int) -> Text:
    """The column of a run: its name, and its value of each metric."""
    sparks = sparklines(view)
    label = printable(view.name)
    label = fit(label, min(cell_len(label), width)).rjust(_VALUE_WIDTH)
    text = Text(no_wrap=True).append(label.ljust(width), _color(number))
    for name in names:
        text.append("\n")
        if name is None:
            continue
        if name not in view.latest:
            text.append("-".rjust(_VALUE_WIDTH), "dim")
            continue
        value = float(view.latest[name])
        style = "" if math.isfinite(value) else "bold red"
        text.append(format_value(value).rjust(_VALUE_WIDTH), style)
        if width > _VALUE_WIDTH:
            text.append("  " + sparks.get(name, " " * SPARK_WIDTH), _color(number))
    return text


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]
