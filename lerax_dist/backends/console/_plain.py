"""The console without a terminal: one plain line for each row, for logs and pipes. Pure."""

import itertools
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from lerax_dist.backends._format import format_duration, format_percent
from lerax_dist.backends.console._view import (
    ABOUT_LOGGING,
    MAX_HPARAMS,
    MAX_LAG,
    RunView,
    describe_launch,
    describe_value,
    is_range,
    printable,
)

_MAX_LENGTH = 200
"""Characters of a line, unless the user has chosen its metrics."""


def is_due(last: float | None, now: float, interval: float) -> bool:
    """Whether a row that arrives now is printed, the last one having been printed at `last`."""
    return last is None or now - last >= interval


def format_row(
    view: RunView, scalars: Mapping[str, np.ndarray], chosen: Sequence[str] | None, now: float
) -> str:
    """A row as one line: step, progress, then the charted metric and the others in their order.

    `chosen` are names and patterns of the metrics to show; `None` for as many as fit.
    """
    parts = [f"step {view.progress.step or 0:,}"]
    if view.share is not None:
        parts.append(format_percent(view.share))
    parts.append(f"elapsed {format_duration(view.progress.elapsed(now))}")
    remaining = view.remaining(now)
    if remaining is not None:
        parts.append(f"ETA {format_duration(remaining)}")
    for name, lag in view.about_logging.items():
        if name.startswith("lag/") and lag > MAX_LAG:
            how = f"{lag:,.0f} behind" if math.isfinite(lag) else "disabled"
            parts.append(f"{name.removeprefix('lag/')} {how}")
    charted = view.charted
    if chosen is None:
        names = [name for name in scalars if not name.startswith(ABOUT_LOGGING)]
    else:
        # A name that is given counts as it is before it counts as a pattern: `a[b]`.
        names = [
            name
            for name in scalars
            if name in chosen or any(fnmatchcase(name, each) for each in chosen)
        ]
    names = [n for n in names if n in (chosen or ()) or not is_range(n, scalars)]
    names.sort(key=lambda name: name != charted)
    for count, name in enumerate(names):
        text = f"{printable(name)}={describe_value(name, scalars)}"
        if chosen is None and count and len("  ".join([*parts, text])) > _MAX_LENGTH:
            parts.append(f"+{len(names) - count} more")
            break
        parts.append(text)
    return printable("  ".join(parts), None)


def format_facts(facts: Mapping[str, Any]) -> str:
    """Launcher, processes and devices as one line; empty if nothing is known."""
    return "  ".join(describe_launch(facts))


def format_hparams(hparams: Mapping[str, Any]) -> str:
    """Hyperparameters as one line."""
    shown = itertools.islice(hparams.items(), MAX_HPARAMS)
    parts = [f"{printable(key)}={printable(str(value))}" for key, value in shown]
    more = [f"+{len(hparams) - MAX_HPARAMS} more"] if len(hparams) > MAX_HPARAMS else []
    return "  ".join(["hparams", *parts, *more])


def format_video(tag: str, shape: tuple[int, ...], step: int) -> str:
    """A clip, which a terminal cannot play, as one line."""
    frames, height, width, _ = shape
    return printable(f"video {printable(tag)}: {frames} frames {width}x{height} at step {step:,}")
