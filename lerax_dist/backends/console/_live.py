"""A display that is redrawn in place by Rich, and text printed above it."""

import io
import itertools
import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO, TypeAlias, cast, final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from lerax_dist.backends.console._columns import Item, beside, fit_columns
from lerax_dist.backends.console._view import MAX_HPARAMS, printable

_REFRESH_PER_SECOND = 2
"""A frame of 64 metrics takes 5 ms, in which the training waits for the interpreter's lock."""
_MAX_VALUE = 40
"""Characters of a hyperparameter, which stands beside others."""
_MAX_BARS = 8
"""Bars of other programs that are shown below the display."""
_MOVES = re.compile(r"(\r|\n|\x1b\[A)")
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
        self._printed = _Printed(lambda text: console.print(Text.from_ansi(text)))
        self._live = Live(
            get_renderable=self._frame,
            console=console,
            refresh_per_second=_REFRESH_PER_SECOND,
            vertical_overflow="crop",
            screen=fullscreen,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO]] = []
        self._held: list[Any] = []

    def start(self) -> None:
        """Begin to redraw; raises `rich.errors.LiveError` if the console has a live display."""
        stdout, stderr = sys.stdout, sys.stderr
        self._live.start(refresh=True)
        self._streams = stdout, stderr
        streams = (_Stream(self._printed, stream) for stream in self._streams)
        sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
        _shown.add(self)
        if not self._fullscreen:
            # A training that is killed cannot show a hidden cursor again.
            self._console.show_cursor(True)
        # Handlers made earlier hold the old object.
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
        shown = itertools.islice(hparams.items(), MAX_HPARAMS)
        items = [Item(printable(key), printable(str(value), _MAX_VALUE)) for key, value in shown]
        if len(hparams) > MAX_HPARAMS:
            items.append(Item("...", f"{len(hparams) - MAX_HPARAMS} more"))
        width = max(1, self._console.width - 1)
        columns = fit_columns([("hyperparameters", items)], width, 10_000, aim=8)
        print_frame(self._console, Group(beside(columns), ""))

    def stop(self) -> None:
        """Draw once more, with all lines, and end."""
        _shown.discard(self)
        self._restore_handlers()
        self._limited = self._fullscreen
        self._printed.close()
        self._live.stop()
        sys.stdout, sys.stderr = self._streams
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
        sys.stdout, sys.stderr = self._streams
        if not self._live._nested:
            self._console.clear_live()
            self._console.pop_render_hook()
        self._restore_handlers()

    def _frame(self) -> RenderableType:
        # One column less: a line that fills the last one wraps when the window shrinks by it.
        # One line less: what was printed last remains visible.
        width, height = self._console.size
        width, height = max(1, width - 1), height - (0 if self._fullscreen else 1)
        limit = height if self._limited else None
        bars = [Text.from_ansi(bar, no_wrap=True) for bar in self._printed.bars]
        room = None if limit is None else max(1, limit - len(bars))
        return Frame(Group(Frame(self._draw(width, room), width, room), *bars), width, limit)


@final
class _Printed:
    """What a program prints under a display: whole lines go above it; lines that are written again
    and again behind a carriage return, as the bars of tqdm are, are shown below it.

    Args:
        print_lines: prints text above the display.
    """

    def __init__(self, print_lines: Callable[[str], None]) -> None:
        self._print_lines = print_lines
        self._lines = [""]
        self._row = 0
        self._text = ""
        self._rewrites = False
        # Not held while lines are printed, which waits for one who may wait for it. Reentrant: a
        # signal handler may print, too.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._is_open = True

    @property
    def bars(self) -> list[str]:
        """Lines without an end that are to be seen now."""
        return [text for text in (*self._lines, self._text) if text.strip()]

    def write(self, text: str, inner: TextIO) -> None:
        """Write text that was meant for `inner`."""
        # A process that was forked has no display, but perhaps a lock that was held.
        if not self._is_open or os.getpid() != self._pid:
            inner.write(text)
            return
        with self._lock:
            self._rewrites = False
            lines = [whole for part in _MOVES.split(text) for whole in self._take(part)]
        if lines:
            self._print_lines("\n".join(lines))

    def close(self) -> None:
        """Print what has no end yet; the streams write to the inner ones from now on."""
        self._is_open = False
        bars, self._lines, self._text = self.bars, [""], ""
        if bars:
            self._print_lines("\n".join(bars))

    def _take(self, part: str) -> Iterator[str]:
        """Take text or a move of the cursor; the lines that are whole now."""
        match part:
            case "\r":
                self._lines[self._row], self._text, self._rewrites = "", "", True
            case "\x1b[A":
                self._row = max(0, self._row - 1)
            case "\n" if self._text or self._lines == [""]:
                # Bars above the cursor have ended.
                yield from self._lines[: self._row]
                yield self._text
                del self._lines[: self._row]
                self._row, self._text, self._rewrites = 0, "", False
            case "\n":
                self._row, self._rewrites = self._row + 1, False
                self._lines += [""] * (self._row == len(self._lines))
                if len(self._lines) > _MAX_BARS:
                    self._row -= 1
                    yield self._lines.pop(0)
            case _ if self._rewrites:
                self._lines[self._row] += part
            case _:
                self._text += part


@final
class _Stream:
    """A stream whose text goes to `_Printed`; all else is that of the stream it stands for."""

    def __init__(self, printed: _Printed, inner: TextIO) -> None:
        self._printed = printed
        # Rich writes to this one.
        self.rich_proxied_file = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        self._printed.write(text, self.rich_proxied_file)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))


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
