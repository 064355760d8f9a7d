"""What a terminal shows of a run: a function of the run, the time and the window's size.

Rich lays it out: a `Text` for each column of metrics and for the chart, `Columns` of these. One
`Text` for a whole column, as the cost grows with the number of renderables, not of characters.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lerax_dist.backends._format import format_change, format_duration, format_rate, format_value
from lerax_dist.backends.console._chart import Curve, bounds, draw_curves, draw_sparklines
from lerax_dist.backends.console._progress import format_percent
from lerax_dist.backends.console._view import MAX_LAG, RunView, describe_launch, printable

MIN_CHART_HEIGHT = 6
"""Rows of a chart with its title and axis, below which it shows nothing useful."""
SPARK_WIDTH = 12
GAP = 4
"""Blanks between columns."""
_MIN_CHART_WIDTH = 36
_MIN_WIDTH_BESIDE = 90
"""From this width on the chart is beside the metrics, in narrower windows below them."""
_MIN_VALUE_WIDTH = _MIN_CHANGE_WIDTH = 9
"""So that the layout does not move while values change."""
_MIN_NAME_WIDTH = 14
"""Names are cut to no less before sparklines and changes are left out."""
_UNLIMITED = 10_000
_CHART_STYLE = "green"
_TITLE_STYLE = "bold cyan"
_LINE_STYLE = "bright_black"
_STATES = {
    "running": "bold green",
    "finished": "bold blue",
    "preempted": "bold yellow",
    "waiting": "yellow",
    "open": "yellow",
    "empty": "yellow",
}


def screen(view: RunView, now: float, width: int, height: int | None) -> RenderableType:
    """All that is shown of a run, for a `Frame` of the same size.

    Args:
        view: the run; its lock is held by the caller.
        now: present time in seconds.
        width: columns of the window.
        height: rows of the window; `None` for no limit.
    """
    head = _header(view, now, width)
    if view.progress.step is None:
        return Group(*head)
    room = _UNLIMITED if height is None else height - len(head) - 1
    return Group(*head, "", *_body(view, width, room))


def _body(view: RunView, width: int, room: int) -> list[RenderableType]:
    groups, name = _metrics(view), view.charted
    if name is None or room < MIN_CHART_HEIGHT:
        return [beside(fit_columns(groups, width, room, aim=10))]
    curves = [(view.history.curve(name), _CHART_STYLE)]
    if width >= _MIN_WIDTH_BESIDE:
        columns = fit_columns(groups, width - GAP - _MIN_CHART_WIDTH, room, aim=14)
        left = sum(text_width(column) + GAP for column in columns)
        rows = min(room, max(9, min(14, text_height(columns))))
        return [beside([*columns, draw_chart(name, curves, min(90, width - left), rows)])]
    columns = fit_columns(groups, width, room, aim=14)
    rows = min(9, room - text_height(columns) - 1)
    if rows < MIN_CHART_HEIGHT:
        return [beside(columns)]
    return [beside(columns), "", draw_chart(name, curves, min(76, width), rows)]


# The header: run, launch, cost of logging, progress.


def _header(view: RunView, now: float, width: int) -> list[RenderableType]:
    """Renderables of one line each."""
    launch = [Text(part, "dim") for part in describe_launch(view.facts)]
    lines: list[RenderableType] = [
        _title(view),
        *wrap([*launch, *_cost(view), *_health(view)], width),
        *(_line(printable(note), "yellow") for note in view.notes),
    ]
    if view.share is not None:
        lines.append(progress_bar(view.share))
    return [*lines, *wrap(describe_progress(view, now), width)]


def _title(view: RunView) -> RenderableType:
    """The name and a rule, which separates the display from what is printed above it."""
    rule = Rule(_line(printable(view.name), "bold"), align="left", style=_LINE_STYLE)
    if not view.state:
        return rule
    return _spread(rule, Text.assemble(("─ ", _LINE_STYLE), state_text(view.state)))


def _spread(left: RenderableType, right: Text) -> Table:
    """One line: something that takes all the width that `right` leaves."""
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_row(left, right)
    return grid


def state_text(state: str) -> Text:
    """A state in its color."""
    return Text(printable(state), _STATES.get(state, "bold red"))


def progress_bar(share: float) -> Table:
    """A bar with its percentage, as wide as there is room."""
    bar = ProgressBar(1.0, share, style=_LINE_STYLE, complete_style="cyan", finished_style="green")
    return _spread(bar, Text(format_percent(share).rjust(8), "bold"))


def describe_progress(view: RunView, now: float) -> list[Text]:
    """Steps, rate and times, a text for each."""
    progress = view.progress
    elapsed = Text.assemble(("elapsed ", "dim"), format_duration(progress.elapsed(now)))
    if progress.step is None:
        return [Text("waiting for the first row", "yellow"), elapsed]
    total = "" if view.share is None else f" / {progress.total:,}"
    parts = [Text.assemble((f"{progress.step:,}", "bold"), (f"{total} steps", "dim"))]
    if progress.rate is not None:
        parts.append(Text.assemble(format_rate(progress.rate), (" steps/s", "dim")))
    parts.append(elapsed)
    remaining = view.remaining(now)
    if remaining is not None and view.share != 1.0:
        parts.append(Text.assemble(("ETA ", "dim"), format_duration(remaining)))
    return parts


def _cost(view: RunView) -> list[Text]:
    """What logging costs the training, once it is known."""
    share, callback = view.own.get("share_of_step"), view.own.get("callback_ms")
    parts: list[Text] = []
    if share is not None:
        style = "" if share < 0.01 else "bold yellow"
        parts.append(Text.assemble((f"{share:.2%}", style), (" of the time", "dim")))
    if callback is not None:
        parts.append(Text.assemble(f"{callback:.3g} ms", (" a row", "dim")))
    return [Text("logging ", "dim") + Text(", ", "dim").join(parts)] if parts else []


def _health(view: RunView) -> list[Text]:
    """Whether the backends and the writer keep up, once it is known."""
    parts: list[Text] = []
    queued = view.own.get("queue_rows", 0.0)
    if queued > MAX_LAG:
        parts.append(Text(f"{queued:,.0f} rows queued", "bold yellow"))
    for name, lag in view.own.items():
        if not name.startswith("lag/"):
            continue
        backend = printable(name.removeprefix("lag/").removesuffix("Backend"))
        if not math.isfinite(lag):
            parts.append(Text(f"✗ {backend}", "bold red"))
        elif lag > MAX_LAG:
            parts.append(Text(f"! {backend} {lag:,.0f} behind", "bold yellow"))
        else:
            parts.append(Text.assemble(("✓ ", "green"), (backend, "dim")))
    return parts


def wrap(parts: Iterable[Text], width: int) -> list[Text]:
    """Parts in as few lines as hold them; Rich would also break lines within a part."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(_line() + part)
    return lines


def _line(text: str = "", style: str = "") -> Text:
    """A text that Rich cuts at the window's edge."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


# The metrics, in columns.


class Item(NamedTuple):
    """A line of a column: a metric or a hyperparameter.

    Attributes:
        name: its name.
        value: its value as text.
        change: its change since the row before, as text.
        spark: its sparkline.
        value_style: style of the value.
        spark_style: style of the sparkline.
    """

    name: str
    value: str
    change: str = ""
    spark: str = ""
    value_style: str = ""
    spark_style: str = "dim cyan"


ItemGroup: TypeAlias = tuple[str, list[Item]]
"""A title, and what is below it."""
_Column: TypeAlias = list[Item | str]
"""Items and titles; an empty title is a blank line."""


class _Widths(NamedTuple):
    name: int
    value: int
    change: int
    spark: int

    @property
    def total(self) -> int:
        return 4 + self.name + self.value + sum(2 + n for n in (self.change, self.spark) if n)


def _metrics(view: RunView) -> list[ItemGroup]:
    sparks, charted = sparklines(view), view.charted
    items: list[Item] = []
    for name, latest in view.latest.items():
        value, before = float(latest), view.before.get(name)
        change = "" if before is None else format_change(value, float(before))
        style = "" if math.isfinite(value) else "bold red"
        item = Item(name, format_value(value), change, sparks.get(name, ""), style)
        items.append(item._replace(spark_style=_CHART_STYLE) if name == charted else item)
    return group_items(items)


def sparklines(view: RunView) -> dict[str, str]:
    """Name of a metric to its sparkline, of full width from the first row on."""
    names, points = view.history.table()
    texts = draw_sparklines(points, SPARK_WIDTH)
    return {name: text.ljust(SPARK_WIDTH) for name, text in zip(names, texts, strict=True)}


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

    Sparklines, and then changes, are left out where that makes room for every item. Where not all
    have room even so, the first ones are shown, and the others counted.

    Args:
        groups: what to show.
        width: columns of the terminal.
        height: lines that there is room for.
        aim: lines from which on another column is begun.
    """
    if not groups or height < 1:
        return []
    cut: Sequence[ItemGroup] | None = None
    shown = groups
    for absent in ((), ("spark",), ("spark", "change")):
        shown = _without(groups, absent) if absent else groups
        columns = _arrange(shown, width, min(aim, height))
        if max(_widths(column, width).total for column in columns) <= width:
            if max(map(len, columns)) <= height:
                return [_column_text(column, _widths(column, width)) for column in columns]
            cut = shown if cut is None else cut
    return _first_columns(shown if cut is None else cut, width, height)


def _without(groups: Sequence[ItemGroup], fields: Iterable[str]) -> list[ItemGroup]:
    blank = dict.fromkeys(fields, "")
    return [(title, [item._replace(**blank) for item in items]) for title, items in groups]


def _arrange(groups: Sequence[ItemGroup], width: int, aim: int) -> list[_Column]:
    """The groups in as few columns of about the same height as have at most `aim` lines."""
    lines = sum(len(items) + 1 for _, items in groups)
    columns = _flow(groups, _UNLIMITED)
    while max(map(len, columns)) > aim:
        count, rows = len(columns) + 1, max(2, lines // (len(columns) + 1))
        while len(more := _flow(groups, rows)) > count:
            rows += 1
        if _total_width(more) > width or max(map(len, more)) >= max(map(len, columns)):
            break
        columns = more
    return columns


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


def _first_columns(groups: Sequence[ItemGroup], width: int, height: int) -> list[Text]:
    """The first columns that have room, with a last line that counts the other items."""
    rows, count = max(1, height - 1), sum(len(items) for _, items in groups)
    columns = [column[:rows] for column in _flow(groups, rows)]
    while len(columns) > 1 and _total_width(columns) > width:
        columns.pop()
    count -= sum(isinstance(cell, Item) for column in columns for cell in column)
    texts = [_column_text(column, _widths(column, width, min_name=4)) for column in columns]
    note = f"{count} more in a larger window"
    # It may be longer than its column, by what the last column leaves free.
    room = text_width(texts[0]) + width - sum(text_width(text) + GAP for text in texts) + GAP
    texts[0].append("\n" + fit(note, min(len(note), room)), "dim")
    return texts


def _widths(column: _Column, width: int, min_name: int = _MIN_NAME_WIDTH) -> _Widths:
    """Widths of a column's fields; names are cut where `width` has no room for the longest."""
    items = [cell for cell in column if isinstance(cell, Item)]
    change = max((len(item.change) for item in items), default=0)
    widths = _Widths(
        max((cell_len(item.name) for item in items), default=0),
        max(_MIN_VALUE_WIDTH, *(cell_len(item.value) for item in items), 0),
        max(_MIN_CHANGE_WIDTH, change) if change else 0,
        max((len(item.spark) for item in items), default=0),
    )
    room = max(min_name, width - widths.total + widths.name)
    return widths._replace(name=min(widths.name, room))


def _total_width(columns: Sequence[_Column]) -> int:
    return sum(_widths(column, _UNLIMITED).total + GAP for column in columns) - GAP


def _column_text(column: _Column, widths: _Widths) -> Text:
    text = _line()
    for row, cell in enumerate(column):
        text.append("\n" if row else "")
        if isinstance(cell, str):
            text.append(fit(cell, min(cell_len(cell), widths.total)), _TITLE_STYLE)
            continue
        text.append(f"  {fit(cell.name, widths.name)}  ")
        text.append(cell.value.rjust(widths.value), cell.value_style)
        if widths.change:
            text.append("  " + cell.change.ljust(widths.change), "dim")
        if widths.spark:
            text.append("  " + cell.spark.ljust(widths.spark), cell.spark_style)
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


# The chart.


def draw_chart(title: str, curves: Sequence[tuple[Curve, str]], width: int, height: int) -> Text:
    """A chart with title, scale and axis.

    Args:
        title: what is drawn.
        curves: curves and their styles.
        width: columns of all of it.
        height: lines of all of it, four or more.
    """
    first, last, low, high = bounds([curve for curve, _ in curves])
    rows = height - 2
    labels = [""] * rows
    if low == high:
        labels[rows // 2] = format_value(float(f"{high:.4g}"))
    else:
        labels[0], labels[-1] = (format_value(float(f"{value:.4g}")) for value in (high, low))
    margin = max(map(len, labels)) + 2
    cells = draw_curves([curve for curve, _ in curves], max(1, width - margin), rows)
    text = _line(" " * margin)
    text.append(fit(printable(title), width - margin), _TITLE_STYLE)
    for label, row in zip(labels, cells, strict=True):
        text.append("\n" + label.rjust(margin - 1), "dim")
        text.append("┤" if label else "│", _LINE_STYLE)
        for owner, run in itertools.groupby(row, key=lambda cell: cell[1]):
            text.append("".join(char for char, _ in run), curves[owner][1] if owner >= 0 else "")
    start, end = f"{first:,.0f}", f"{last:,.0f} steps"
    gap = max(1, width - margin - len(start) - len(end))
    text.append("\n" + " " * margin + start + " " * gap + end, "dim")
    return text
