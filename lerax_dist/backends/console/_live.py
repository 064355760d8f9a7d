"""A display that is redrawn in place by Rich, and text printed above it."""

import io
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO, TypeAlias, final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from lerax_dist.backends.console._columns import Item, beside, fit_columns
from lerax_dist.backends.console._view import printable

_REFRESH_PER_SECOND = 2
"""A frame of 64 metrics takes 5 ms, in which the training waits for the interpreter's lock."""
Draw: TypeAlias = Callable[[int, int | None], RenderableType]
# Seconds. A terminal that is paused holds Rich's lock; a fork must not wait for it.
_FORK_TIMEOUT = 1.0
_shown: "weakref.WeakSet[LiveDisplay]" = weakref.WeakSet()


@final
class LiveDisplay:
    """Redraws something twice a second until it is stopped; then the last screen stays.

    Args:
        draw: makes what is shown from the width and the height of the window (`None`: no limit);
            called in a separate thread.
        console: where to draw.
        fullscreen: whether it has the whole window while it runs, which then takes any change of
            its size; for a program that prints nothing else.
    """

    def __init__(self, draw: Draw, console: Console, *, fullscreen: bool = False) -> None:
        self._draw, self._console, self._fullscreen = draw, console, fullscreen
        self._limited = True
        self._live = Live(
            get_renderable=self._frame,
            console=console,
            refresh_per_second=_REFRESH_PER_SECOND,
            vertical_overflow="crop",
            screen=fullscreen,
        )
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO]] = []
        self._held: list[Any] = []

    def start(self) -> None:
        """Begin to redraw; raises `rich.errors.LiveError` if the console has a live display."""
        stdout, stderr = sys.stdout, sys.stderr
        self._live.start(refresh=True)
        _shown.add(self)
        if not self._fullscreen:
            # A training that is killed cannot show a hidden cursor again.
            self._console.show_cursor(True)
        # Live catches what is written to `sys.stderr`; handlers made earlier hold the old object.
        for handler in _stream_handlers():
            if handler.stream is stdout or handler.stream is stderr:
                self._handlers.append((handler, handler.stream))
                handler.setStream(sys.stdout if handler.stream is stdout else sys.stderr)

    def print_line(self, line: str) -> None:
        """Print a line above the display."""
        print_frame(self._console, Text(line, "dim"))

    def print_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Print hyperparameters above the display, in columns."""
        if not hparams:
            return
        items = [Item(printable(key), printable(str(value))) for key, value in hparams.items()]
        width = max(1, self._console.width - 1)
        columns = fit_columns([("hyperparameters", items)], width, 10_000, aim=8)
        print_frame(self._console, Group(beside(columns), ""))

    def stop(self) -> None:
        """Draw once more, with all lines, and end."""
        _shown.discard(self)
        self._restore_handlers()
        self._limited = self._fullscreen
        self._live.stop()
        if self._fullscreen:
            print_frame(self._console, self._draw(max(1, self._console.width - 1), None))

    def _restore_handlers(self) -> None:
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers = []

    def before_fork(self) -> None:
        """Wait for the thread that draws: the child would inherit the locks that it holds."""
        # In Rich's order. The forking thread may hold them itself.
        locks = (self._live._lock, self._console._lock)
        self._held = [lock for lock in locks if lock.acquire(timeout=_FORK_TIMEOUT)]

    def after_fork(self) -> None:
        """Let the thread draw again; also in the child, which has no such thread."""
        while self._held:
            self._held.pop().release()

    def leave_to_parent(self) -> None:
        """In the child: what it prints goes to the terminal, past the display."""
        if len(self._held) < 2:  # another thread holds a lock, and is not here
            self._live._lock, self._console._lock = threading.RLock(), threading.RLock()
            self._held = []
        self.after_fork()
        _shown.discard(self)
        if not self._live._nested:
            self._live._disable_redirect_io()
            self._console.clear_live()
            self._console.pop_render_hook()
        self._restore_handlers()

    def _frame(self) -> RenderableType:
        # One column less: a line that fills the last one wraps when the window shrinks by it.
        # One line less: what was printed last remains visible.
        width, height = self._console.size
        width, height = max(1, width - 1), height - (0 if self._fullscreen else 1)
        limit = height if self._limited else None
        return Frame(self._draw(width, limit), width, limit)


def _at_fork(action: Callable[[LiveDisplay], None]) -> Callable[[], None]:
    def act() -> None:
        for display in list(_shown):
            action(display)

    return act


os.register_at_fork(
    before=_at_fork(LiveDisplay.before_fork),
    after_in_parent=_at_fork(LiveDisplay.after_fork),
    after_in_child=_at_fork(LiveDisplay.leave_to_parent),
)


@final
class Frame:
    """Something cut to a window, without blanks at the ends of its lines.

    Without them fewer lines wrap, and so stay on the screen, when the window becomes narrower.
    """

    def __init__(self, content: RenderableType, width: int, height: int | None) -> None:
        self._content, self._width, self._height = content, width, height

    def lines(self, console: Console, options: ConsoleOptions) -> Iterable[list[Segment]]:
        """Its lines as Rich draws them."""
        options = options.update(width=self._width, height=None)
        for line in console.render_lines(self._content, options, pad=False)[: self._height]:
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
            yield line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(console, options):
            yield from line
            yield Segment.line()


def print_frame(console: Console, content: RenderableType) -> None:
    """Print something that stays, in its colors."""
    console.print(Frame(content, max(1, console.width - 1), None))


def plain_lines(content: RenderableType, width: int, height: int | None = None) -> list[str]:
    """The lines of something without colors."""
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    lines = Frame(content, width, height).lines(console, console.options)
    return ["".join(segment.text for segment in line) for line in lines]


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    loggers: list[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {id(h): h for each in loggers for h in getattr(each, "handlers", ())}
    return [h for h in handlers.values() if isinstance(h, logging.StreamHandler)]
