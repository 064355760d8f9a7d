"""The `video_*` arguments: how often, how long and how large. Pure."""

import math
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """What the user asks for.

    Attributes:
        interval: iterations between clips; 0 for no video.
        num_steps: environment steps per clip.
        width: width in pixels.
        height: height in pixels.
        fps: frames per second.
    """

    interval: int
    num_steps: int
    width: int
    height: int
    fps: float


def check_settings(
    interval: Any, num_steps: Any, width: Any, height: Any, fps: Any, log_interval: int
) -> Settings:
    """The settings, checked.

    Args:
        interval: `video_interval`.
        num_steps: `video_num_steps`.
        width: `video_width`.
        height: `video_height`.
        fps: `video_fps`.
        log_interval: iterations between rows.

    Raises:
        ValueError: if an argument is outside its range, or if a clip could fall on an iteration
            without a row; a clip takes its step from that row.
    """
    _check_integer("video_interval", interval, 0, "Use 0 for no video.")
    _check_integer("video_num_steps", num_steps, 1, "128 is usual.")
    _check_integer("video_width", width, 1, "640 is usual.")
    _check_integer("video_height", height, 1, "480 is usual.")
    number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if not number or not 0 < fps < math.inf:
        raise ValueError(f"`video_fps` must be positive and finite, got {fps!r}. 50.0 is usual.")
    if interval % log_interval:
        nearest = max(round(interval / log_interval), 1) * log_interval
        raise ValueError(
            f"`video_interval` must be a multiple of `log_interval` {log_interval}, because a clip "
            f"takes its step from the row of its iteration; got {interval}. Use {nearest}."
        )
    return Settings(int(interval), int(num_steps), int(width), int(height), float(fps))


def _check_integer(name: str, value: Any, least: int, fix: str) -> None:
    integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if not integer or value < least:
        raise ValueError(f"`{name}` must be an integer of {least} or more, got {value!r}. {fix}")
