"""What a terminal shows of several runs side by side. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from lerax_dist.backends._columns import Item, Line, beside, fit, group_items, width_of
from lerax_dist.backends._format import format_value
from lerax_dist.backends._header import bar, pace, state_piece
from lerax_dist.backends._screen import LOWEST_CHART, chart
from lerax_dist.backends._table import SPARK_WIDTH, sparklines
from lerax_dist.backends._view import RunView, chosen_metric

COLOURS = ("green", "yellow", "magenta", "blue", "red", "cyan")
_LABEL = 26
_VALUE = 11
# As long as the longest state, "interrupted".
_STATE = 11
_GAP = 3
_BESIDE = 36


class Shown(NamedTuple):
    """A run among others.

    Attributes:
        view: the run; its lock is held by the caller.
        now: present time in seconds, or that of its end.
    """

    view: RunView
    now: float


def compare(runs: Sequence[Shown], wanted: str, width: int, height: int | None) -> list[Line]:
    """All lines to show, at most `width` wide and, unless `height` is `None`, that many.

    Args:
        runs: the runs, each with a colour of its own.
        wanted: metric to draw.
        width: columns of the window.
        height: rows of the window.
    """
    head = [line for number, run in enumerate(runs) for line in _heading(number, run, width)]
    room = 10_000 if height is None else height - len(head) - 1
    names = list(dict.fromkeys(name for run in runs for name in run.view.latest))
    if not names:
        return head[:height]
    name = chosen_metric(names, wanted)
    table = _table(runs, names, width, room)
    if name is None or room < LOWEST_CHART:
        return [*head, [], *table][:height]
    curves = [(run.view.history.curve(name), _colour(number)) for number, run in enumerate(runs)]
    column = max(map(width_of, table)) + 5
    if width - column >= _BESIDE:
        rows = min(room, max(9, min(14, len(table))))
        drawn = chart(name, curves, min(90, width - column), rows)
        return [*head, [], *beside(table, drawn, column)][:height]
    left_over = max(room // 3, room - len(table) - 1)
    if left_over < LOWEST_CHART:
        return [*head, [], *table][:height]
    drawn = chart(name, curves, min(76, width), min(10, left_over))
    table = _table(runs, names, width, room - len(drawn) - 1)
    return [*head, [], *table, [], *drawn][:height]


def _heading(number: int, run: Shown, width: int) -> list[Line]:
    view, progress = run.view, run.view.progress
    label = fit(view.name, min(_LABEL, max(8, width // 3)))
    line: Line = [("● ", _colour(number)), (label, "bold")]
    state, style = state_piece(view.state)
    parts: list[Line] = [[(fit(state, _STATE), style)]]
    if progress.share is not None:
        parts.append(bar(progress.share, 26 if width >= 120 else 18))
    if view.state != "waiting":
        parts += pace(progress, run.now)
    for part in parts:
        if width_of(line) + 2 + width_of(part) <= width:
            line = [*line, ("  ", ""), *part]
    notes = [[("  " + fit(note, min(cell_len(note), width - 2)), "yellow")] for note in view.notes]
    return [line, *notes]


def _table(runs: Sequence[Shown], names: Sequence[str], width: int, room: int) -> list[Line]:
    """A row a metric, a column a run; with sparklines where they have room."""
    groups = group_items(Item(name, name) for name in names)
    longest = max(cell_len(item.name) for _, items in groups for item in items)
    first = min(max(longest, 10), 28, max(8, width - len(runs) * (_VALUE + _GAP)))
    fields = _VALUE
    if first + 2 + len(runs) * (_VALUE + 2 + SPARK_WIDTH + _GAP) <= width:
        fields += 2 + SPARK_WIDTH
    most = max(1, (width - first - 2) // (fields + _GAP))
    shown = runs[:most]
    courses = [sparklines(run.view) for run in shown]
    head: Line = [(" " * (first + 2), "")]
    for number, run in enumerate(shown):
        label = fit(run.view.name, min(cell_len(run.view.name), fields))
        head.append((" " * _GAP + label.rjust(_VALUE).ljust(fields), _colour(number)))
    lines = [head]
    for title, items in groups:
        if title:
            lines.append([(fit(title, first + 2), "bold cyan")])
        for item in items:
            line: Line = [("  " + fit(item.name, first), "")]
            for number, run in enumerate(shown):
                line += _value(run.view, item.value)
                if fields > _VALUE:
                    spark = courses[number].get(item.value, " " * SPARK_WIDTH)
                    line.append(("  " + spark, _colour(number)))
            lines.append(line)
    if len(lines) > room:
        hidden = len(lines) - max(1, room - 1)
        lines = [*lines[: max(1, room - 1)], [(f"{hidden} more in a larger window", "dim")]]
    return lines


def _value(view: RunView, name: str) -> Line:
    if name not in view.latest:
        return [(" " * _GAP + "-".rjust(_VALUE), "dim")]
    value = float(view.latest[name])
    style = "" if math.isfinite(value) else "bold red"
    return [(" " * _GAP + format_value(value).rjust(_VALUE), style)]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
