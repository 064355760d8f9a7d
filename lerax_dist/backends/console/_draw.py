"""What a terminal shows of a run: a function of the run, the time and the window's size."""

import itertools
import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lerax_dist.backends._format import (
    format_change,
    format_duration,
    format_percent,
    format_rate,
    format_value,
)
from lerax_dist.backends.console._chart import Curve, bounds, draw_curves, draw_sparklines
from lerax_dist.backends.console._columns import (
    GAP,
    TITLE_STYLE,
    Item,
    ItemGroup,
    beside,
    fit,
    fit_columns,
    group_items,
    line,
    text_height,
    text_width,
)
from lerax_dist.backends.console._view import (
    MAX_LAG,
    RunView,
    describe_launch,
    describe_value,
    is_range,
    printable,
    range_of,
)

MIN_CHART_HEIGHT = 6
"""Rows of a chart with its title and axis, below which it shows nothing useful."""
SPARK_WIDTH = 12
_MIN_CHART_WIDTH = 36
_MIN_TITLE_WIDTH = 8
"""Columns for the name of the run, below which its state is omitted."""
_MIN_WIDTH_BESIDE = 90
"""From this width on the chart is beside the metrics, in narrower windows below them."""
_UNLIMITED = 10_000
_CHART_STYLE = "green"
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
    """All that is shown of a run, for a `Frame` of the same size. The caller holds `view.lock`."""
    head = _header(view, now, width)
    if view.progress.step is None:
        return Group(*head)
    room = _UNLIMITED if height is None else height - len(head) - 1
    return Group(*head, "", *_body(view, width, room))


def _body(view: RunView, width: int, room: int) -> list[RenderableType]:
    groups, name = _metrics(view), view.charted
    if name is None or room < MIN_CHART_HEIGHT:
        return [beside(fit_columns(groups, width, room, aim=10))]
    edges = [(view.history.curve(each), "dim") for each in range_of(name) if each in view.latest]
    curves = [*edges, (view.history.curve(name), _CHART_STYLE)]
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


def _header(view: RunView, now: float, width: int) -> list[RenderableType]:
    """Run, launch, cost of logging and progress, in renderables of one line each."""
    launch = [Text(part, "dim") for part in describe_launch(view.facts)]
    lines: list[RenderableType] = [
        _title(view, width),
        *_wrap([*launch, *_logging(view)], width),
        *(line(printable(note), "yellow") for note in view.notes),
    ]
    if view.share is not None:
        lines.append(progress_bar(view.share))
    return [*lines, *_wrap(describe_progress(view, now), width)]


def _title(view: RunView, width: int) -> RenderableType:
    """The name and a rule, which separates the display from what is printed above it."""
    rule = Rule(line(printable(view.name), "bold"), align="left", style=_LINE_STYLE)
    state = Text.assemble(("─ ", _LINE_STYLE), state_text(view.state))
    # Where there is no room for both, the name is more important.
    if not view.state or width - state.cell_len < _MIN_TITLE_WIDTH:
        return rule
    return _spread(rule, state)


def _spread(left: RenderableType, right: Text) -> Table:
    """One line; `left` gets all the width that `right` does not need."""
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


def _logging(view: RunView) -> list[Text]:
    """What logging costs the training and whether the backends keep up, once it is known."""
    about, cost, parts = view.about_logging, [], []
    if "share_of_step" in about:
        style = "" if about["share_of_step"] < 0.01 else "bold yellow"
        cost.append(
            Text.assemble((f"{about['share_of_step']:.2%}", style), (" of the time", "dim"))
        )
    if "callback_ms" in about:
        cost.append(Text.assemble(f"{about['callback_ms']:.3g} ms", (" a row", "dim")))
    if cost:
        parts.append(Text("logging ", "dim") + Text(", ", "dim").join(cost))
    if about.get("queue_rows", 0.0) > MAX_LAG:
        parts.append(Text(f"{about['queue_rows']:,.0f} rows queued", "bold yellow"))
    for name, lag in about.items():
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


def _wrap(parts: Iterable[Text], width: int) -> list[Text]:
    """Parts in as few lines as hold them; Rich would also break lines within a part."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(line() + part)
    return lines


def _metrics(view: RunView) -> list[ItemGroup]:
    sparks, charted = sparklines(view), view.charted
    items: list[Item] = []
    for name, latest in view.latest.items():
        if is_range(name, view.latest):
            continue
        value, before = float(latest), view.before.get(name)
        change = "" if before is None else format_change(value, float(before))
        spark = (sparks.get(name, ""), _CHART_STYLE if name == charted else "dim cyan")
        style = "" if math.isfinite(value) else "bold red"
        text = describe_value(name, view.latest)
        items.append(Item(name, text, style, ((change, "dim"), spark)))
    return group_items(items)


def sparklines(view: RunView) -> dict[str, str]:
    """Name of a metric to its sparkline, of full width from the first row on."""
    names, points = view.history.table(SPARK_WIDTH)
    texts = draw_sparklines(points)
    return {name: text.ljust(SPARK_WIDTH) for name, text in zip(names, texts, strict=True)}


def draw_chart(title: str, curves: Sequence[tuple[Curve, str]], width: int, height: int) -> Text:
    """A chart of curves and their styles, with title, scale and axis in `height` >= 4 lines."""
    first, last, low, high = bounds([curve for curve, _ in curves])
    rows = height - 2
    labels = [""] * rows
    if low == high:
        labels[rows // 2] = format_value(float(f"{high:.4g}"))
    else:
        labels[0], labels[-1] = (format_value(float(f"{value:.4g}")) for value in (high, low))
    margin = max(map(len, labels)) + 2
    cells = draw_curves([curve for curve, _ in curves], max(1, width - margin), rows)
    text = line(" " * margin)
    text.append(fit(printable(title), width - margin), TITLE_STYLE)
    for label, row in zip(labels, cells, strict=True):
        text.append("\n" + label.rjust(margin - 1), "dim")
        text.append("┤" if label else "│", _LINE_STYLE)
        for owner, run in itertools.groupby(row, key=lambda cell: cell[1]):
            text.append("".join(char for char, _ in run), curves[owner][1] if owner >= 0 else "")
    start, end = f"{first:,.0f}", f"{last:,.0f} steps"
    gap = max(1, width - margin - len(start) - len(end))
    text.append("\n" + " " * margin + start + " " * gap + end, "dim")
    return text
