"""The console in a terminal: a display that is redrawn in place."""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO, TypeAlias, final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from lerax_dist.backends._columns import Item, Line, fit_columns

_REFRESH_PER_SECOND = 4
"""More often costs the training time on the interpreter's lock and nobody reads faster."""
Draw: TypeAlias = Callable[[int, int | None], list[Line]]


@final
class LiveDisplay:
    """Redraws something a few times a second until it is stopped, then leaves its last state.

    Args:
        draw: makes the lines to show of the width and the height there are (no limit if `None`);
            called in a thread of its own.
        console: where to.
        fullscreen: whether it has the whole window while it runs, which then takes any change of
            its size; for a program that prints nothing else.
    """

    def __init__(self, draw: Draw, console: Console, *, fullscreen: bool = False) -> None:
        self._console = console
        self._draw = draw
        self._fullscreen = fullscreen
        self._picture = _Picture(draw, fullscreen)
        self._live = Live(
            self._picture,
            console=console,
            refresh_per_second=_REFRESH_PER_SECOND,
            vertical_overflow="crop",
            screen=fullscreen,
        )
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO]] = []

    def start(self) -> None:
        stdout, stderr = sys.stdout, sys.stderr
        self._live.start(refresh=True)
        if not self._fullscreen:
            # A training that is killed cannot bring a hidden cursor back.
            self._console.show_cursor(True)
        # Live catches what is written to `sys.stderr`; handlers made earlier hold the old object.
        for handler in _stream_handlers():
            if handler.stream is stdout or handler.stream is stderr:
                self._handlers.append((handler, handler.stream))
                handler.setStream(sys.stdout if handler.stream is stdout else sys.stderr)

    def print_above(self, lines: list[Line]) -> None:
        """Print lines that stay, above the display."""
        print_lines(self._console, lines)

    def print_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Print hyperparameters above the display, in columns."""
        items = [Item(name, str(value)) for name, value in hparams.items()]
        width = max(1, self._console.width - 1)
        self.print_above([*fit_columns([("hyperparameters", items)], width, 10_000, aim=8), []])

    def stop(self) -> None:
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []
        self._picture.last = not self._fullscreen
        self._live.stop()
        if self._fullscreen:
            print_lines(self._console, self._draw(max(1, self._console.width - 1), None))


@final
class _Picture:
    """What is drawn as Rich asks for it: made anew at each refresh, in Rich's thread."""

    def __init__(self, draw: Draw, fullscreen: bool) -> None:
        self._draw = draw
        self._fullscreen = fullscreen
        self.last = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # One column less: a line that fills the last one wraps when the window shrinks by it.
        width = max(1, options.max_width - 1)
        # One row less: what was printed last stays in sight.
        height = console.size.height - (0 if self._fullscreen else 1)
        yield from _segments(
            [_stripped(line) for line in self._draw(width, None if self.last else height)]
        )


@final
class _Lines:
    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _segments(self._lines)


def print_lines(console: Console, lines: list[Line]) -> None:
    """Print lines that stay, in their colours."""
    console.print(_Lines(lines))


def _stripped(line: Line) -> Line:
    """Without blanks at its end: fewer lines are broken when the window becomes narrower."""
    line = list(line)
    while line and not line[-1][0].strip():
        line.pop()
    if line:
        text, style = line[-1]
        line[-1] = (text.rstrip(), style)
    return line


def _segments(lines: list[Line]) -> RenderResult:
    # Segments, not a `Table`: a table of 64 metrics takes 24 ms to lay out, four times a second.
    for line in lines:
        for text, style in line:
            yield Segment(text, Style.parse(style) if style else None)
        yield Segment.line()


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    loggers: list[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {id(h): h for each in loggers for h in getattr(each, "handlers", ())}
    return [h for h in handlers.values() if isinstance(h, logging.StreamHandler)]
