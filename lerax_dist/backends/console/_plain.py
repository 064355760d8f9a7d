"""The console without a terminal: one plain line for each row, for logs and pipes. Pure."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from lerax_dist.backends._format import format_duration, format_value
from lerax_dist.backends.console._progress import format_percent
from lerax_dist.backends.console._view import MAX_LAG, OWN, RunView, describe_launch, printable

_MAX_LENGTH = 200
"""Characters of a line, unless the user has chosen its metrics."""


def is_due(last: float | None, now: float, interval: float) -> bool:
    """Whether a row that arrives now is printed, the last one having been printed at `last`."""
    return last is None or now - last >= interval


def format_row(
    view: RunView, scalars: Mapping[str, np.ndarray], chosen: Sequence[str] | None, now: float
) -> str:
    """A row as one line: step, progress, then the charted metric and the others in their order.

    Args:
        view: the run after this row.
        scalars: metrics to choose from.
        chosen: names and patterns of those to show; `None` for as many as fit.
        now: present time in seconds.
    """
    parts = [f"step {view.progress.step or 0:,}"]
    if view.share is not None:
        parts.append(format_percent(view.share))
    parts.append(f"elapsed {format_duration(view.progress.elapsed(now))}")
    remaining = view.remaining(now)
    if remaining is not None:
        parts.append(f"ETA {format_duration(remaining)}")
    for name, lag in view.own.items():
        if name.startswith("lag/") and lag > MAX_LAG:
            how = f"{lag:,.0f} behind" if math.isfinite(lag) else "disabled"
            parts.append(f"{name.removeprefix('lag/')} {how}")
    charted = view.charted
    names = sorted(_chosen(scalars, chosen), key=lambda name: name != charted)
    texts = [f"{name}={format_value(float(scalars[name]))}" for name in names]
    return printable("  ".join(parts + (_fitting(parts, texts) if chosen is None else texts)))


def _chosen(names: Mapping[str, Any], chosen: Sequence[str] | None) -> list[str]:
    if chosen is None:
        return [name for name in names if not name.startswith(OWN)]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen)]


def _fitting(parts: list[str], texts: list[str]) -> list[str]:
    """The first texts, as many as fit, and the number of the others."""
    used = len("  ".join(parts))
    for count, text in enumerate(texts):
        used += 2 + len(text)
        if count and used > _MAX_LENGTH:
            return [*texts[:count], f"+{len(texts) - count} more"]
    return texts


def format_facts(facts: Mapping[str, Any]) -> str:
    """Launcher, processes and devices as one line; empty if nothing is known."""
    return "  ".join(describe_launch(facts))


def format_hparams(hparams: Mapping[str, Any]) -> str:
    """Hyperparameters as one line."""
    return printable("  ".join(["hparams", *(f"{key}={value}" for key, value in hparams.items())]))


def format_video(tag: str, shape: tuple[int, ...], step: int) -> str:
    """A clip, which a terminal cannot play, as one line."""
    frames, height, width, _ = shape
    return printable(f"video {tag}: {frames} frames {width}x{height} at step {step:,}")
