"""What a terminal shows of a run: a pure function of the run, the time and the window's size."""

import math

from rich.cells import cell_len

from lerax_dist.backends._chart import draw_line
from lerax_dist.backends._columns import Line, Piece, fit, fit_columns, group_names
from lerax_dist.backends._format import format_duration, format_rate, format_value
from lerax_dist.backends._progress import Progress
from lerax_dist.backends._view import RunView

_BESIDE = 90
"""From this width on the chart stands beside the metrics, below it under them."""
_NARROWEST_CHART = 36
_LOWEST_CHART = 6
"""Rows of a chart with its title and axis, below which it says nothing."""
_GAP = 5


def screen(view: RunView, now: float, width: int, height: int | None) -> list[Line]:
    """All lines to show, at most `width` wide and, unless `height` is `None`, that many.

    Args:
        view: the run; its lock is held by the caller.
        now: present time in seconds.
        width: columns of the window.
        height: rows of the window.
    """
    head = [_title(view.name, width), *_progress(view.progress, now, width)]
    if view.progress.step is None:
        return head[:height]
    room = 10_000 if height is None else height - len(head) - 1
    return [*head, [], *_body(view, width, room)][:height]


def _body(view: RunView, width: int, room: int) -> list[Line]:
    groups = group_names({name: _shown(float(value)) for name, value in view.latest.items()})
    if view.charted is None or room < _LOWEST_CHART:
        return fit_columns(groups, width, room, aim=10)
    if width >= _BESIDE:
        left = fit_columns(groups, width - _GAP - _NARROWEST_CHART, room, aim=12)
        column = max(map(width_of, left)) + _GAP
        height = min(room, max(9, min(13, len(left))))
        return _pair(left, _chart(view, min(90, width - column), height), column)
    metrics = fit_columns(groups, width, room, aim=10)
    left_over = room - len(metrics) - 1
    if left_over < _LOWEST_CHART:
        return metrics
    return [*metrics, [], *_chart(view, min(76, width), min(9, left_over))]


def width_of(line: Line) -> int:
    """Columns of the terminal that a line of single-width and fitted text takes."""
    return sum(cell_len(text) for text, _ in line)


def _title(name: str, width: int) -> Line:
    # A rule sets the display off from what is printed above it.
    shown = fit(name, min(cell_len(name), width))
    return [(shown, "bold"), (" " + "─" * (width - cell_len(shown) - 1), "bright_black")]


def _shown(value: float) -> Piece:
    return format_value(value), "" if math.isfinite(value) else "bold red"


def _progress(progress: Progress, now: float, width: int) -> list[Line]:
    lines: list[Line] = []
    if progress.share is not None:
        lines.append(_bar(progress.share, width))
    elapsed: Line = [("elapsed ", "dim"), (format_duration(progress.elapsed(now)), "")]
    if progress.step is None:
        waiting: Line = [("waiting for the first row", "yellow")]
        return [*lines, *_wrap([waiting, elapsed], width)]
    steps: Line = [(f"{progress.step:,}", "bold"), (" steps", "dim")]
    if progress.share is not None:
        steps = [(f"{progress.step:,}", "bold"), (f" / {progress.total:,} steps", "dim")]
    parts = [steps]
    if progress.rate is not None:
        parts.append([(format_rate(progress.rate), ""), (" steps/s", "dim")])
    parts.append(elapsed)
    remaining = progress.remaining(now)
    if remaining is not None and progress.share != 1.0:
        parts.append([("ETA ", "dim"), (format_duration(remaining), "")])
    return [*lines, *_wrap(parts, width)]


def _bar(share: float, width: int) -> Line:
    # Rounded down: 100.0% is said of a run that has made its last step, and of no other.
    percent = f"{math.floor(share * 1000) / 10:.1f}%".rjust(8)
    length = max(1, width - len(percent))
    halves = int(share * length * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    style = "green" if share == 1.0 else "cyan"
    return [(done, style), ("━" * (length - len(done)), "bright_black"), (percent, "bold")]


def _wrap(parts: list[Line], width: int) -> list[Line]:
    lines: list[Line] = []
    for part in parts:
        if lines and width_of(lines[-1]) + 3 + width_of(part) <= width:
            lines[-1] = [*lines[-1], ("   ", ""), *part]
        else:
            lines.append(list(part))
    return lines


def _chart(view: RunView, width: int, height: int) -> list[Line]:
    values = view.curve()
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    rows = height - 2
    labels = [""] * rows
    labels[0], labels[-1] = format_value(float(f"{high:.4g}")), format_value(float(f"{low:.4g}"))
    if low == high:
        labels = [""] * rows
        labels[rows // 2] = format_value(float(f"{high:.4g}"))
    margin = max(map(len, labels)) + 2
    drawing = draw_line(values, max(1, width - margin), rows)
    title = view.charted or ""
    first, last = f"{view.first_step:,}", f"{view.progress.step or 0:,} steps"
    gap = max(1, width - margin - len(first) - len(last))
    lines: list[Line] = [[(" " * margin, ""), (fit(title, width - margin), "bold cyan")]]
    for label, row in zip(labels, drawing, strict=True):
        mark = "┤" if label else "│"
        lines.append([(label.rjust(margin - 1), "dim"), (mark, "bright_black"), (row, "green")])
    axis: Piece = (" " * margin + first + " " * gap + last, "dim")
    return [*lines, [axis]]


def _pair(left: list[Line], right: list[Line], column: int) -> list[Line]:
    lines: list[Line] = []
    for row in range(max(len(left), len(right))):
        line = left[row] if row < len(left) else []
        if row < len(right):
            line = [*line, (" " * (column - width_of(line)), ""), *right[row]]
        lines.append(line)
    return lines
