"""Terminals that break long lines anew when their window becomes narrower.

Rich goes up as many rows as it has drawn lines, and by then they take more rows than that: what is
above its display would stay there, once for each change of the window.
"""

import os
from collections.abc import Mapping, Sequence
from typing import final

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.segment import ControlType


def breaks_lines(environ: Mapping[str, str]) -> bool:
    """Whether the terminal does so; those that cut lines off instead are few, and say who they are.

    Args:
        environ: environment variables.
    """
    if environ.get("TMUX"):
        return True
    cuts = environ.get("XTERM_VERSION") or environ.get("STY") or environ.get("TERM") == "linux"
    return not cuts


def rows_more(widths: Sequence[int], columns: int) -> int:
    """How many rows more than there are lines.

    Args:
        widths: columns that each line takes.
        columns: columns that the window has now.
    """
    return sum(max(0, -(-width // max(columns, 1)) - 1) for width in widths)


@final
class Reflow(RenderHook):
    """Goes up the rows that Rich does not know of, before it draws again.

    Attributes:
        widths: columns that each line of the display takes.

    Args:
        console: where it is drawn.
    """

    def __init__(self, console: Console) -> None:
        self.widths: list[int] = []
        self._console = console
        self._breaks = breaks_lines(os.environ)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What Rich is about to write, with the way up before it."""
        more = rows_more(self.widths, self._console.width) if self._breaks else 0
        if not more:
            return renderables
        # Once: what is drawn next has its own widths.
        self.widths = []
        one_up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        return [Control(ControlType.CARRIAGE_RETURN, *(one_up * more)), *renderables]
