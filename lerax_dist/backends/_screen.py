"""What a terminal shows of a run: a pure function of the run, the time and the window's size."""

from collections.abc import Sequence

from lerax_dist.backends._chart import Curve, bounds, draw_curves
from lerax_dist.backends._columns import Line, beside, fit, fit_columns, width_of
from lerax_dist.backends._format import format_value
from lerax_dist.backends._header import header
from lerax_dist.backends._table import CHARTED, metric_groups
from lerax_dist.backends._view import RunView

_BESIDE = 90
"""From this width on the chart stands beside the metrics, below it under them."""
_NARROWEST_CHART = 36
LOWEST_CHART = 6
"""Rows of a chart with its title and axis, below which it says nothing."""
_GAP = 5
_EVERYTHING = 10_000


def screen(view: RunView, now: float, width: int, height: int | None) -> list[Line]:
    """All lines to show, at most `width` wide and, unless `height` is `None`, that many.

    Args:
        view: the run; its lock is held by the caller.
        now: present time in seconds.
        width: columns of the window.
        height: rows of the window.
    """
    head = header(view, now, width)
    if view.progress.step is None:
        return head[:height]
    room = _EVERYTHING if height is None else height - len(head) - 1
    return [*head, [], *_body(view, width, room)][:height]


def _body(view: RunView, width: int, room: int) -> list[Line]:
    groups = metric_groups(view)
    name = view.charted
    if name is None or room < LOWEST_CHART:
        return fit_columns(groups, width, room, aim=10)
    curves = [(view.history.curve(name), CHARTED)]
    if width >= _BESIDE:
        left = fit_columns(groups, width - _GAP - _NARROWEST_CHART, room, aim=14)
        column = max(map(width_of, left)) + _GAP
        height = min(room, max(9, min(14, len(left))))
        return beside(left, chart(name, curves, min(90, width - column), height), column)
    metrics = fit_columns(groups, width, room, aim=14)
    left_over = room - len(metrics) - 1
    if left_over < LOWEST_CHART:
        return metrics
    return [*metrics, [], *chart(name, curves, min(76, width), min(9, left_over))]


def chart(title: str, curves: Sequence[tuple[Curve, str]], width: int, height: int) -> list[Line]:
    """A chart with title, scale and axis.

    Args:
        title: what is drawn.
        curves: curves and their styles.
        width: columns of all of it.
        height: rows of all of it, four or more.
    """
    first, last, low, high = bounds([curve for curve, _ in curves])
    rows = height - 2
    labels = [""] * rows
    labels[0], labels[-1] = format_value(float(f"{high:.4g}")), format_value(float(f"{low:.4g}"))
    if low == high:
        labels = [""] * rows
        labels[rows // 2] = format_value(float(f"{high:.4g}"))
    margin = max(map(len, labels)) + 2
    cells = draw_curves([curve for curve, _ in curves], max(1, width - margin), rows)
    lines: list[Line] = [[(" " * margin, ""), (fit(title, width - margin), "bold cyan")]]
    for label, row in zip(labels, cells, strict=True):
        mark = "┤" if label else "│"
        line: Line = [(label.rjust(margin - 1), "dim"), (mark, "bright_black")]
        for char, owner in row:
            style = curves[owner][1] if owner >= 0 else ""
            if line[-1][1] == style and len(line) > 2:
                line[-1] = (line[-1][0] + char, style)
            else:
                line.append((char, style))
        lines.append(line)
    start, end = f"{first:,.0f}", f"{last:,.0f} steps"
    gap = max(1, width - margin - len(start) - len(end))
    return [*lines, [(" " * margin + start + " " * gap + end, "dim")]]
