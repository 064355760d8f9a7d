"""The metrics of a run as items to show: value, change and course of each. Pure."""

import math

from lerax_dist.backends._columns import Group, Item, group_items
from lerax_dist.backends._format import format_change, format_value
from lerax_dist.backends._sparkline import draw_sparklines
from lerax_dist.backends._view import RunView

SPARK_WIDTH = 12
CHARTED = "green"
"""Colour of the metric that is drawn, in the table and in the chart."""


def metric_groups(view: RunView) -> list[Group]:
    """All metrics by prefix, in order of first appearance."""
    courses = sparklines(view)
    items, charted = [], view.charted
    for name, value in view.latest.items():
        number, before = float(value), view.before.get(name)
        change = "" if before is None else format_change(number, float(before))
        style = "" if math.isfinite(number) else "bold red"
        item = Item(name, format_value(number), style, change, courses.get(name, ""))
        items.append(item._replace(colour=CHARTED) if name == charted else item)
    return group_items(items)


def sparklines(view: RunView, width: int = SPARK_WIDTH) -> dict[str, str]:
    """Name of a metric to its sparkline, of full width from the first row on."""
    names, points = view.history.table()
    texts = draw_sparklines(points, width)
    return {name: text.ljust(width) for name, text in zip(names, texts, strict=True)}
