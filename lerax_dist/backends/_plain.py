"""The console where there is no terminal: one plain line a row, for logs and pipes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lerax_dist.backends._format import format_duration, format_value
from lerax_dist.backends._progress import Progress


def is_due(last: float | None, now: float, interval: float) -> bool:
    """Whether a row that comes now gets a line, the last one having been printed at `last`."""
    return last is None or now - last >= interval


def format_row(
    progress: Progress, scalars: Mapping[str, np.ndarray], charted: str | None, now: float
) -> str:
    """A row as one line: step, progress, then the charted metric and all others in their order.

    Args:
        progress: progress after this row.
        scalars: metrics to show.
        charted: the one that comes first.
        now: present time in seconds.
    """
    parts = [f"step {progress.step or 0:,}"]
    if progress.share is not None:
        parts.append(f"{progress.share:.1%}")
    parts.append(f"elapsed {format_duration(progress.elapsed(now))}")
    remaining = progress.remaining(now)
    if remaining is not None:
        parts.append(f"ETA {format_duration(remaining)}")
    names = sorted(scalars, key=lambda name: name != charted)
    parts.extend(f"{name}={format_value(float(scalars[name]))}" for name in names)
    return "  ".join(parts)


def format_hparams(hparams: Mapping[str, Any]) -> str:
    """Hyperparameters as one line."""
    return "  ".join(["hparams", *(f"{name}={value}" for name, value in hparams.items())])


def format_video(tag: str, shape: tuple[int, ...], step: int) -> str:
    """A clip, which a terminal cannot play, as one line."""
    frames, height, width, _ = shape
    return f"video {tag}: {frames} frames {width}x{height} at step {step:,}"
