"""The console where there is no terminal: one plain line a row, for logs and pipes. Pure."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from lerax_dist.backends._format import format_duration, format_value
from lerax_dist.backends._place import describe_place
from lerax_dist.backends._view import FAR_BEHIND, OWN, RunView

_LENGTH = 200
"""Characters of a line, unless the user has said what it shall hold."""


def is_due(last: float | None, now: float, interval: float) -> bool:
    """Whether a row that comes now gets a line, the last one having been printed at `last`."""
    return last is None or now - last >= interval


def format_row(
    view: RunView, scalars: Mapping[str, np.ndarray], chosen: Sequence[str] | None, now: float
) -> str:
    """A row as one line: step, progress, then the charted metric and others in their order.

    Args:
        view: the run after this row.
        scalars: metrics to choose from.
        chosen: names and patterns of those to show; `None` for as many as fit.
        now: present time in seconds.
    """
    progress = view.progress
    parts = [f"step {progress.step or 0:,}"]
    if progress.share is not None:
        parts.append(f"{progress.share:.1%}")
    parts.append(f"elapsed {format_duration(progress.elapsed(now))}")
    remaining = progress.remaining(now)
    if remaining is not None:
        parts.append(f"ETA {format_duration(remaining)}")
    for name, lag in view.own.items():
        if name.startswith("lag/") and lag > FAR_BEHIND:
            how = f"{lag:,.0f} behind" if math.isfinite(lag) else "takes no rows"
            parts.append(f"{name.removeprefix('lag/')} {how}")
    charted = view.charted
    names = sorted(_shown(scalars, chosen), key=lambda name: name != charted)
    texts = [f"{name}={format_value(float(scalars[name]))}" for name in names]
    return "  ".join(parts + (_fitting(parts, texts) if chosen is None else texts))


def _shown(names: Mapping[str, Any], chosen: Sequence[str] | None) -> list[str]:
    if chosen is None:
        return [name for name in names if not name.startswith(OWN)]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen)]


def _fitting(parts: list[str], texts: list[str]) -> list[str]:
    """The first texts, as many as fit, and how many do not."""
    used = len("  ".join(parts))
    for count, text in enumerate(texts):
        used += 2 + len(text)
        if count and used > _LENGTH:
            return [*texts[:count], f"+{len(texts) - count} more"]
    return texts


def format_facts(facts: Mapping[str, Any]) -> str:
    """Where a run runs as one line; empty if nothing is known."""
    return "  ".join(describe_place(facts))


def format_hparams(hparams: Mapping[str, Any]) -> str:
    """Hyperparameters as one line."""
    return "  ".join(["hparams", *(f"{name}={value}" for name, value in hparams.items())])


def format_video(tag: str, shape: tuple[int, ...], step: int) -> str:
    """A clip, which a terminal cannot play, as one line."""
    frames, height, width, _ = shape
    return f"video {tag}: {frames} frames {width}x{height} at step {step:,}"
