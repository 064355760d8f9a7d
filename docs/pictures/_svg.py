"""A terminal's screen as an SVG that needs no font but the reader's own monospaced one."""

import itertools
import re
from html import escape
from typing import Any

import pyte

WIDTH, HEIGHT, MARGIN, FONT = 8.4, 18, 14, 14
BACKGROUND, FOREGROUND = "#1b1f27", "#d7dae0"
COLORS = {
    "black": "#3b4252",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",  # pyte's name for yellow
    "yellow": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#e6e9ef",
}


def draw(screen: pyte.Screen, first: int) -> str:
    """The screen from its line `first` on, without blank lines at its end."""
    last = max(place for place, line in enumerate(screen.display) if line.strip())
    count = last + 1 - first
    width = screen.columns * WIDTH + 2 * MARGIN
    height = count * HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" '
        f'font-size="{FONT}">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
    ]
    for y in range(count):
        row = [screen.buffer[first + y][x] for x in range(screen.columns)]
        parts += _row(row, MARGIN + y * HEIGHT)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(row: list[Any], top: float) -> list[str]:
    parts, x = [], 0
    for style, cells in itertools.groupby(row, key=_style):
        text = "".join(cell.data for cell in cells)
        left, columns = MARGIN + x * WIDTH, len(text)
        x += columns
        color, back, bold = style
        if back:
            box = f'x="{left:g}" y="{top:g}" width="{columns * WIDTH:g}" height="{HEIGHT}"'
            parts.append(f'<rect {box} fill="{back}"/>')
        weight = ' font-weight="bold"' if bold else ""
        # Wide gaps would be drawn as one blank.
        for found in re.finditer(r"\S+(?: \S+)*", text):
            # The length is given, so that columns stay columns whatever the font.
            length = f'textLength="{len(found[0]) * WIDTH:g}" lengthAdjust="spacingAndGlyphs"'
            where = f'x="{left + found.start() * WIDTH:g}" y="{top + 0.75 * HEIGHT:g}"'
            parts.append(f'<text {where} {length} fill="{color}"{weight}>{escape(found[0])}</text>')
    return parts


def _style(cell: Any) -> tuple[str, str, bool]:
    color, back = _color(cell.fg, FOREGROUND), _color(cell.bg, "")
    if cell.reverse:
        color, back = back or BACKGROUND, color
    return color, back, cell.bold


def _color(name: str, default: str) -> str:
    if name == "default":
        return default
    bright = name.removeprefix("bright")
    return COLORS.get(bright) or (f"#{name}" if len(name) == 6 else default)
