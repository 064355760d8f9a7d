"""A display that is redrawn in place by Rich, and text printed above it."""

import io
import itertools
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO, TypeAlias, final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from lerax_dist.backends.console._columns import Item, beside, fit_columns
from lerax_dist.backends.console._view import MAX_HPARAMS, printable

# A frame of 64 metrics takes 5 ms, in which the training waits for the interpreter's lock.
_REFRESH_PER_SECOND = 2
# Characters of a hyperparameter in a column.
_MAX_VALUE = 40
# Bars that are shown below the display.
_MAX_BARS = 8
# How bars move the cursor.
_MOVES = re.compile(r"(\r|\n|\x1b\[A)")
# Seconds. A terminal that is paused holds Rich's lock; a fork must not wait for it.
_FORK_TIMEOUT = 1.0

Draw: TypeAlias = Callable[[int, int | None], RenderableType]


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
        self._streams: list[_Stream] = []
        self._held: list[Any] = []
        self._live = Live(
            get_renderable=self._frame,
            console=console,
            refresh_per_second=_REFRESH_PER_SECOND,
            vertical_overflow="crop",
            screen=fullscreen,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def start(self) -> None:
        """Begin to redraw; raises `rich.errors.LiveError` if the console has a live display."""
        self._live.start(refresh=True)
        self._streams = [_Stream(each, self._print_text) for each in (sys.stdout, sys.stderr)]
        _replace_streams([(each.rich_proxied_file, each) for each in self._streams])
        _shown.add(self)
        if not self._fullscreen:
            # A training that is killed cannot show a hidden cursor again.
            self._console.show_cursor(True)

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
        self._limited = self._fullscreen
        for stream in self._streams:
            stream.end()
        self._live.stop()
        _replace_streams([(each, each.rich_proxied_file) for each in self._streams])
        if self._fullscreen:
            print_frame(self._console, self._draw(max(1, self._console.width - 1), None))

    def before_fork(self) -> None:
        """Wait for the thread that draws: the child would inherit half of what it writes."""
        # In Rich's order. The forking thread may hold them itself.
        locks = (self._live._lock, self._console._lock)
        self._held = [lock for lock in locks if lock.acquire(timeout=_FORK_TIMEOUT)]

    def after_fork(self) -> None:
        """Let the thread draw again."""
        for lock in self._held:
            lock.release()

    def leave_to_parent(self) -> None:
        """In the child: what it prints goes to the terminal, past the display."""
        # A thread that is not here may hold the old ones.
        self._live._lock, self._console._lock = threading.RLock(), threading.RLock()
        _shown.discard(self)
        for stream in self._streams:
            stream.is_open = False
        sys.stdout, sys.stderr = (each.rich_proxied_file for each in self._streams)
        if not self._live._nested:
            self._console.clear_live()
            self._console.pop_render_hook()

    def _print_text(self, text: str) -> None:
        self._console.print(Text.from_ansi(text))

    def _frame(self) -> RenderableType:
        # One column less: a line that fills the last one wraps when the window shrinks by it.
        # One line less: what was printed last remains visible.
        width, height = self._console.size
        width, height = max(1, width - 1), height - (0 if self._fullscreen else 1)
        limit = height if self._limited else None
        bars = [Text.from_ansi(bar, no_wrap=True) for each in self._streams for bar in each.bars]
        room = None if limit is None else max(1, limit - len(bars))
        return Frame(Group(Frame(self._draw(width, room), width, room), *bars), width, limit)


# The displays that are shown now.
_shown: set[LiveDisplay] = set()

os.register_at_fork(
    before=lambda: [display.before_fork() for display in list(_shown)],
    after_in_parent=lambda: [display.after_fork() for display in list(_shown)],
    after_in_child=lambda: [display.leave_to_parent() for display in list(_shown)],
)


@final
class _Stream:
    """Stands for stdout or stderr while a display is shown. Whole lines go above the display; lines
    that are written again and again behind a carriage return, as the bars of tqdm, below it.

    Args:
        inner: the stream that it stands for; Rich writes to it, by the name of the attribute.
        print_text: prints lines above the display.
    """

    def __init__(self, inner: TextIO, print_text: Callable[[str], None]) -> None:
        self.rich_proxied_file = inner
        self.is_open = True
        self._print_text = print_text
        self._bars = [""]
        # The bar that the cursor is on.
        self._row = 0
        self._text = ""
        # Not held while lines are printed, which waits for Rich's lock: who holds that may print.
        # Reentrant, since a signal handler may print, too.
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    @property
    def bars(self) -> list[str]:
        """Lines without an end that are to be seen now."""
        return [text for text in (*self._bars, self._text) if text.strip()]

    def write(self, text: str) -> int:
        if not self.is_open:
            return self.rich_proxied_file.write(text)
        with self._lock:
            lines = self._take(text)
        if lines:
            self._print_text("\n".join(lines))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def end(self) -> None:
        """Print what has no end yet; what is written from now on goes to the inner stream."""
        self.is_open = False
        bars, self._bars, self._text = self.bars, [""], ""
        if bars:
            self._print_text("\n".join(bars))

    def _take(self, text: str) -> list[str]:
        """The lines that are whole after this text; bars and the rest are kept."""
        whole: list[str] = []
        in_bar = False
        for part in _MOVES.split(text):
            if part == "\r":
                self._bars[self._row], self._text, in_bar = "", "", True
            elif part == "\x1b[A":
                self._row = max(0, self._row - 1)
            elif part != "\n" and in_bar:
                self._bars[self._row] += part
            elif part != "\n":
                self._text += part
            elif self._text or self._bars == [""]:
                # Bars above the cursor have ended.
                whole += [*self._bars[: self._row], self._text]
                del self._bars[: self._row]
                self._row, self._text, in_bar = 0, "", False
            else:
                self._row, in_bar = self._row + 1, False
                self._bars += [""] * (self._row == len(self._bars))
                if len(self._bars) > _MAX_BARS:
                    self._row -= 1
                    whole.append(self._bars.pop(0))
        return whole


def _replace_streams(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Replace stdout and stderr, the old and the new of each; also in handlers made before."""
    loggers: list[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = [h for each in loggers for h in getattr(each, "handlers", ())]
    for old, new in pairs:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is old:
                setattr(sys, name, new)
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


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
