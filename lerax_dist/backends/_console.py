"""The run in the console: a live display in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend, already_open, not_open
from lerax_dist.backends._plain import (
    format_facts,
    format_hparams,
    format_row,
    format_video,
    is_due,
)
from lerax_dist.backends._terminal import is_terminal
from lerax_dist.backends._video import check_frames
from lerax_dist.backends._view import HEADLINE, RunView

if TYPE_CHECKING:
    from rich.console import Console

    from lerax_dist.backends._columns import Line
    from lerax_dist.backends._live import LiveDisplay


@final
class ConsoleBackend(AbstractLoggingBackend):
    """Logging backend that displays a live metrics table and progress bar.

    In a terminal the display is redrawn in place, four times a second at most: the run and how
    logging fares, progress, all metrics by group (value, change since the row before, course), and
    a chart of one of them over the whole run. What `print` and `logging` write meanwhile appears
    above it. When the run is closed, or the program interrupted, its last state stays.

    Elsewhere (files, pipes, CI, `NO_COLOR`, `TERM=dumb`, notebooks, and launchers whose
    pseudo-terminal has no size) a row is one plain line with percentage, elapsed time and ETA: the
    first row at once, then one every `interval` seconds at most, with the newest values since the
    line before, and always the last. The charted metric comes first, the others follow in their
    order for as long as the line has room; how many it has not is told.

    Args:
        console: where to; Rich's own console, that is stdout, if `None`.
        chart: metric to draw. Until it comes, the first whose last part contains "loss" is drawn.
        interval: seconds between plain lines.
        metrics: what plain lines hold, names or patterns such as `"episode/*"`, all of it however
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

    def open(self, name: str) -> None:
        if self._view is not None:
            raise already_open(self, name)
        from rich import get_console

        console = get_console() if self._console is None else self._console
        view = RunView(name, self._chart, self._clock())
        self._file = console.file
        self._live = self._started(view, console) if is_terminal(console) else None
        self._view = view
        self._unprinted, self._printed_at = {}, None
        if self._live is None:
            self._print(f"run {name}")

    def on_run(self, facts: dict[str, Any]) -> None:
        """Where the run runs.

        Args:
            facts: what the journal says of it.
        """
        view = self._opened()
        with view.lock:
            view.facts = facts
        told = format_facts(facts)
        if self._live is None and told:
            self._print(told)

    def on_training_start(self, total_timesteps: int, total_iterations: int) -> None:
        """Training starts.

        Args:
            total_timesteps: steps that make 100%; 0 if unknown.
            total_iterations: not shown.
        """
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
            self._live.print_above([[(line, "dim")]])
        else:
            self._print(line)

    def close(self) -> None:
        view, self._view = self._view, None
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        elif view is not None and self._unprinted:
            self._print_row(view, self._clock())

    def _opened(self) -> RunView:
        if self._view is None:
            raise not_open(self)
        return self._view

    def _started(self, view: RunView, console: "Console") -> "LiveDisplay | None":
        from rich.errors import LiveError

        from lerax_dist.backends._live import LiveDisplay
        from lerax_dist.backends._screen import screen

        def draw(width: int, height: int | None) -> "list[Line]":
            with view.lock:
                return screen(view, self._clock(), width, height)

        live = LiveDisplay(draw, console)
        try:
            live.start()
        except LiveError:
            # Someone else's progress bar has this console.
            return None
        return live

    def _print_row(self, view: RunView, now: float) -> None:
        line = format_row(view, self._unprinted, self._metrics, now)
        self._print(line)
        self._unprinted, self._printed_at = {}, now

    def _print(self, line: str) -> None:
        # Not through Rich, which would wrap it, colour it and take [brackets] for markup.
        assert self._file is not None
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        text = line.encode(encoding, "backslashreplace").decode(encoding)
        self._file.write(" ".join(text.split("\n")) + "\n")
        self._file.flush()
