"""What stands above the metrics: the run, where it is, what logging costs, the progress. Pure."""

import math

from rich.cells import cell_len

from lerax_dist.backends._columns import Line, Piece, fit, width_of
from lerax_dist.backends._format import format_duration, format_rate
from lerax_dist.backends._place import describe_place
from lerax_dist.backends._progress import Progress
from lerax_dist.backends._view import FAR_BEHIND, RunView

_STATES = {
    "running": "bold green",
    "finished": "bold blue",
    "preempted": "bold yellow",
    "waiting": "yellow",
    "open": "yellow",
    "empty": "yellow",
}


def header(view: RunView, now: float, width: int) -> list[Line]:
    """All of it, at most `width` wide."""
    lines = [
        title(view, width),
        *wrap([*_where(view), *cost(view), *health(view)], width),
        *([(fit(note, min(width, cell_len(note))), "yellow")] for note in view.notes),
    ]
    if view.progress.share is not None:
        lines.append(bar(view.progress.share, width))
    return [*lines, *wrap(pace(view.progress, now), width)]


def title(view: RunView, width: int) -> Line:
    """The name and a rule, which sets the display off from what is printed above it."""
    state: Line = [] if not view.state else [("─ ", "bright_black"), state_piece(view.state)]
    room = width - width_of(state)
    if room < 8:
        state, room = [], width
    shown = fit(view.name, min(cell_len(view.name), room))
    rule = " " + "─" * (room - cell_len(shown) - 1)
    line: Line = [(shown, "bold"), (rule[: room - cell_len(shown)], "bright_black")]
    return [*line, *state]


def state_piece(state: str) -> Piece:
    """A state in its colour."""
    return state, _STATES.get(state, "bold red")


def pace(progress: Progress, now: float) -> list[Line]:
    """Steps, speed and times, each a part of its own."""
    elapsed: Line = [("elapsed ", "dim"), (format_duration(progress.elapsed(now)), "")]
    if progress.step is None:
        return [[("waiting for the first row", "yellow")], elapsed]
    steps: Line = [(f"{progress.step:,}", "bold"), (" steps", "dim")]
    if progress.share is not None:
        steps = [(f"{progress.step:,}", "bold"), (f" / {progress.total:,} steps", "dim")]
    parts = [steps]
    if progress.rate is not None:
        parts.append([(format_rate(progress.rate), ""), (" steps/s", "dim")])
    parts.append(elapsed)
    remaining = progress.remaining(now)
    if remaining is not None and progress.share != 1.0:
        parts.append([("ETA ", "dim"), (format_duration(remaining), "")])
    return parts


def bar(share: float, width: int) -> Line:
    """A progress bar with its percentage."""
    # Rounded down: 100.0% is said of a run that has made its last step, and of no other.
    percent = f"{math.floor(share * 1000) / 10:.1f}%".rjust(8)
    length = max(1, width - len(percent))
    halves = int(share * length * 2)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    style = "green" if share == 1.0 else "cyan"
    return [(done, style), ("━" * (length - len(done)), "bright_black"), (percent, "bold")]


def cost(view: RunView) -> list[Line]:
    """What logging costs the training, once it says so."""
    share, callback = view.own.get("share_of_step"), view.own.get("callback_ms")
    line: Line = []
    if share is not None:
        line = [(f"{share:.2%}", "" if share < 0.01 else "bold yellow"), (" of the time", "dim")]
    if callback is not None:
        line += [(", " if line else "", "dim"), (f"{callback:.3g} ms", ""), (" a row", "dim")]
    return [[("logging ", "dim"), *line]] if line else []


def health(view: RunView) -> list[Line]:
    """Whether the backends and the writer keep up, once they say so."""
    parts: list[Line] = []
    waiting = view.own.get("queue_rows", 0.0)
    if waiting > FAR_BEHIND:
        parts.append([(f"{waiting:,.0f} rows wait to be written", "bold yellow")])
    for name, lag in view.own.items():
        if not name.startswith("lag/"):
            continue
        backend = name.removeprefix("lag/").removesuffix("Backend")
        if not math.isfinite(lag):
            parts.append([(f"✗ {backend}", "bold red")])
        elif lag > FAR_BEHIND:
            parts.append([(f"! {backend} {lag:,.0f} behind", "bold yellow")])
        else:
            parts.append([("✓ ", "green"), (backend, "dim")])
    return parts


def wrap(parts: list[Line], width: int) -> list[Line]:
    """Parts in as many lines as they need; one that is too long for a line is cut."""
    lines: list[Line] = []
    for part in parts:
        if lines and width_of(lines[-1]) + 3 + width_of(part) <= width:
            lines[-1] = [*lines[-1], ("   ", ""), *part]
        else:
            lines.append(list(part))
    return [_cut(line, width) for line in lines]


def _cut(line: Line, width: int) -> Line:
    kept: Line = []
    for text, style in line:
        room = width - width_of(kept)
        if room > 0:
            kept.append((fit(text, min(cell_len(text), room)), style))
    return kept


def _where(view: RunView) -> list[Line]:
    return [[(part, "dim")] for part in describe_place(view.facts)]
