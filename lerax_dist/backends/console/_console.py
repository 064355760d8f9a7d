"""The console as a backend: chooses between the live display and plain lines."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend, already_open, not_open
from lerax_dist.backends._video import check_frames
from lerax_dist.backends.console._plain import (
    format_facts,
    format_hparams,
    format_row,
    format_video,
    is_due,
)
from lerax_dist.backends.console._view import HEADLINE, RunView, printable

# Rich is imported where it is used: the processes that do not write never load it.
if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from lerax_dist.backends.console._live import LiveDisplay


@final
class ConsoleBackend(AbstractLoggingBackend):
    """Logging backend that displays a live metrics table and progress bar.

    On a terminal the display is redrawn in place, at most twice a second: the run and the state of
    its backends, progress, all metrics by group (value, change since the row before, sparkline),
    and a chart of one of them over the whole run. What `print` and `logging` write meanwhile
    appears above it. When the run is closed, or the program interrupted, the last screen stays.

    Elsewhere (files, pipes, CI, `NO_COLOR`, `TERM=dumb`, notebooks, and launchers whose
    pseudo-terminal has no size) a row is one plain line with percentage, elapsed time and ETA: the
    first row at once, then at most one every `interval` seconds, with the newest values since the
    line before, and always the last. The charted metric comes first, the others follow in their
    order for as long as the line has room, then the number of those without room.

    A run that finishes shows 100% if its next row would have been at the total number of steps or
    after it, as in the loop below, whose last step is 99.

    Args:
        console: where to write; if `None`, Rich's global console, which writes to stdout.
        chart: metric to draw. Until a row has it, the first one whose last part contains "loss" is
            drawn.
        interval: seconds between plain lines.
        metrics: what plain lines show, names or patterns such as `"episode/*"`, all of it however
            long the line; `None` for a choice that fits.
        clock: present time in seconds, of a clock that never goes back.

    Example:
        ```python
        backends = [ConsoleBackend(chart="train/loss"), TensorBoardBackend("logs")]
        with Logger(backends, total_steps=100) as logger:
            for step in range(100):
                logger.log({"train": {"loss": 1.0 / (step + 1)}}, step)
        ```
    """

    def __init__(
        self,
        *,
        console: "Console | None" = None,
        chart: str = HEADLINE,
        interval: float = 10.0,
        metrics: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._chart = chart
        self._interval = interval
        self._metrics = None if metrics is None else tuple(metrics)
        self._clock = clock
        self._view: RunView | None = None
        self._live: LiveDisplay | None = None
        self._file: IO[str] | None = None
        self._unprinted: dict[str, np.ndarray] = {}
        self._printed_at: float | None = None
        self._printed_share: float | None = None

    def open(self, name: str) -> None:
        if self._view is not None:
            raise already_open(self, name)
        from rich import get_console

        console = self._console or get_console()
        view = RunView(name, self._chart, self._clock())
        self._file = console.file
        self._live = self._start(view, console) if is_terminal(console) else None
        self._view = view
        self._unprinted, self._printed_at, self._printed_share = {}, None, None
        if self._live is None:
            self._print(f"run {printable(name)}")

    def on_run(self, facts: dict[str, Any]) -> None:
        """Show launcher, processes and devices."""
        view = self._opened()
        with view.lock:
            view.facts = facts
        if self._live is None and (line := format_facts(facts)):
            self._print(line)

    def on_training_start(self, total_timesteps: int, total_iterations: int) -> None:
        """Show progress from now on; 100% are `total_timesteps`."""
        view = self._opened()
        with view.lock:
            view.progress.begin(total_timesteps, self._clock())

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self._opened()
        if self._live is not None:
            self._live.print_hparams(hparams)
        else:
            self._print(format_hparams(hparams))

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        view, now = self._opened(), self._clock()
        view.add(scalars, step, now)
        if self._live is None:
            self._unprinted.update(scalars)
            if is_due(self._printed_at, now, self._interval):
                self._print_row(view, now)

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        self._opened()
        line = format_video(tag, check_frames(frames).shape, step)
        if self._live is not None:
            self._live.print_line(line)
        else:
            self._print(line)

    def on_end(self, state: str) -> None:
        """Show how the run ended."""
        view = self._opened()
        with view.lock:
            view.state = state

    def close(self) -> None:
        view, self._view = self._view, None
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        elif view is not None and view.progress.step is not None:
            # The end of the run may have completed it, see `Progress.share`.
            if self._unprinted or view.share != self._printed_share:
                self._print_row(view, self._clock())

    def _opened(self) -> RunView:
        if self._view is None:
            raise not_open(self)
        return self._view

    def _start(self, view: RunView, console: "Console") -> "LiveDisplay | None":
        from rich.errors import LiveError

        from lerax_dist.backends.console._draw import screen
        from lerax_dist.backends.console._live import LiveDisplay

        def draw(width: int, height: int | None) -> "RenderableType":
            with view.lock:
                return screen(view, self._clock(), width, height)

        live = LiveDisplay(draw, console)
        try:
            live.start()
        except LiveError:
            # Another progress bar has this console.
            return None
        return live

    def _print_row(self, view: RunView, now: float) -> None:
        self._print(format_row(view, self._unprinted, self._metrics, now))
        self._unprinted, self._printed_at, self._printed_share = {}, now, view.share

    def _print(self, line: str) -> None:
        # Not through Rich, which would wrap it, color it and read [brackets] as markup.
        assert self._file is not None
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        text = printable(line, None).encode(encoding, "backslashreplace").decode(encoding)
        # Bars of tqdm on this terminal make room for the line, and are drawn again below it.
        bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
        with contextlib.nullcontext() if bars is None else bars.external_write_mode(self._file):
            self._file.write(text + "\n")
            self._file.flush()


def is_terminal(console: "Console") -> bool:
    """Whether a display that is redrawn in place can be seen there."""
    wanted = console.is_terminal and not console.is_dumb_terminal and not console.no_color
    return wanted and console.encoding.startswith("utf") and _has_size(console.file)


def _has_size(file: IO[str]) -> bool:
    # Open MPI gives every rank a pseudo-terminal, also when its own output goes to a file; then
    # it has no columns. `FORCE_COLOR` makes Rich take a pipe for a terminal, which has no size.
    try:
        return os.get_terminal_size(file.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False
