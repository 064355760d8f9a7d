"""`lerax-dist watch`: runs as they are, from any machine that sees their folders."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import final

from rich import get_console
from rich.console import Console, RenderableType

from lerax_dist.backends.console._console import is_terminal
from lerax_dist.backends.console._draw import screen
from lerax_dist.backends.console._live import LiveDisplay, plain_lines, print_frame
from lerax_dist.backends.console._plain import format_facts, format_row, is_due
from lerax_dist.backends.console._view import printable
from lerax_dist.cli._compare import compare
from lerax_dist.cli._followed import FollowedRun
from lerax_dist.cli._print import print_error
from lerax_dist.journal import JOURNAL, journal_of
from lerax_dist.journal._bucket import local_copy

# Seconds between two looks at the journals.
_POLL_INTERVAL = 0.25
# Columns of a screen that is not printed on a terminal, if COLUMNS is not set.
_WIDTH = 100


def labels_of(run_dirs: Sequence[str]) -> list[str]:
    """Labels of several runs: the names of their folders, or their paths if two names are equal."""
    names = [Path(run_dir).resolve().name for run_dir in run_dirs]
    return [
        name if names.count(name) == 1 else run_dir
        for name, run_dir in zip(names, run_dirs, strict=True)
    ]


def watch(run_dirs: Sequence[str], chart: str, interval: float, *, once: bool) -> int:
    """Show runs until all of them have finished or failed, and return the exit status.

    Args:
        run_dirs: folders of the runs, or their journals.
        chart: metric to draw.
        interval: seconds between the lines of a run, where there is no terminal.
        once: whether to show what there is and end.
    """
    labels = labels_of(run_dirs) if len(run_dirs) > 1 else [None]
    console = get_console()
    try:
        runs = [_followed(*each, chart) for each in zip(run_dirs, labels, strict=True)]
        if once:
            for run_dir in run_dirs:
                journal_of(run_dir)
            _show_once(runs, chart, console)
        else:
            _follow(runs, chart, interval, console)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader of the pipe has ended, e.g. `head`. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError) as error:
        print_error(f"lerax-dist watch: {error}")
        return 1
    return 0


def _followed(run_dir: str, label: str | None, chart: str) -> FollowedRun:
    """The run whose journal is or will be in `run_dir`, or is that itself."""
    path, refresh = local_copy(run_dir)
    journal = path if path.is_file() else path / JOURNAL
    return FollowedRun(journal, label, chart, refresh=refresh)


def _follow(runs: list[FollowedRun], chart: str, interval: float, console: Console) -> None:
    with contextlib.ExitStack() as stack:
        lines: _PlainLines | None = None
        if is_terminal(console):
            display = LiveDisplay(
                lambda width, height: _draw(runs, chart, width, height), console, fullscreen=True
            )
            # The window is restored at every end but SIGKILL.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            display.start()
            stack.callback(display.stop)
        else:
            lines = _PlainLines(runs, interval)
            stack.callback(lines.finish)
        while True:
            for run in runs:
                run.poll()
            if any(run.behind for run in runs):
                continue
            if lines is not None:
                lines.print_due()
            if all(run.ended for run in runs):
                return
            time.sleep(_POLL_INTERVAL)


def _show_once(runs: list[FollowedRun], chart: str, console: Console) -> None:
    for run in runs:
        run.poll()
        while run.behind:
            run.poll()
    if is_terminal(console):
        print_frame(console, _draw(runs, chart, console.width - 1, None))
        return
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) > 0 else _WIDTH
    for line in plain_lines(_draw(runs, chart, width, None), width):
        _print(line)


def _draw(runs: list[FollowedRun], chart: str, width: int, height: int | None) -> RenderableType:
    views = [(run.view, run.now()) for run in runs]
    with contextlib.ExitStack() as stack:
        for view, _ in views:
            stack.enter_context(view.lock)
        if len(views) == 1:
            return screen(*views[0], width, height)
        return compare(views, chart, width, height)


@final
class _PlainLines:
    """Prints lines of runs at an interval, where there is no terminal."""

    def __init__(self, runs: Sequence[FollowedRun], interval: float) -> None:
        self._runs = runs
        self._interval = interval
        self._printed: list[tuple[float | None, int | None, str]] = [(None, None, "")] * len(runs)

    def print_due(self, at_end: bool = False) -> None:
        """Print what is due."""
        now = time.monotonic()
        for number, run in enumerate(self._runs):
            at, step, state = self._printed[number]
            view = run.view
            mark = f"{printable(view.name)}: " if len(self._runs) > 1 else ""
            with view.lock:
                fresh = view.progress.step is not None and view.progress.step != step
                ended = run.ended and view.state != state
                if fresh and (at_end or ended or is_due(at, now, self._interval)):
                    _print(mark + format_row(view, view.latest, None, run.now()))
                    at, step = now, view.progress.step
                if view.state != state:
                    facts = [format_facts(view.facts)] if view.facts else []
                    parts = [f"run {view.name}", view.state, *facts, *view.notes]
                    _print(mark + "  ".join(map(printable, parts)))
                self._printed[number] = (at, step, view.state)

    def finish(self) -> None:
        """Print what was not due yet."""
        self.print_due(at_end=True)


def _print(line: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(printable(line, None).encode(encoding, "replace").decode(encoding), flush=True)
