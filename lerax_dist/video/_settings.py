"""How often, how long and how large: the arguments that a video has. Pure."""

import math
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """What a user asks for.

    Attributes:
        interval: iterations between clips; 0 for none.
        num_steps: environment steps a clip.
        width: width in pixels.
        height: height in pixels.
        fps: frames a second.
    """

    interval: int
    num_steps: int
    width: int
    height: int
    fps: float


def check_settings(
    interval: Any, num_steps: Any, width: Any, height: Any, fps: Any, log_interval: int
) -> Settings:
    """The settings, if they make sense.

    Args:
        interval: `video_interval`.
        num_steps: `video_num_steps`.
        width: `video_width`.
        height: `video_height`.
        fps: `video_fps`.
        log_interval: iterations between rows.

    Raises:
        ValueError: one of them is outside its range, or clips would fall between rows, whose steps
            they take.
    """
    _check_whole("video_interval", interval, 0, "Use 0 for no video.")
    _check_whole("video_num_steps", num_steps, 1, "128 is usual.")
    _check_whole("video_width", width, 1, "640 is usual.")
    _check_whole("video_height", height, 1, "480 is usual.")
    number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if not number or not 0 < fps < math.inf:
        raise ValueError(f"`video_fps` must be positive and finite, got {fps!r}. 50.0 is usual.")
    if interval % log_interval:
        nearest = max(round(interval / log_interval), 1) * log_interval
        raise ValueError(
            f"`video_interval` must be a multiple of `log_interval` {log_interval}, for a clip has "
            f"the step of its iteration's row; got {interval}. Use {nearest}."
        )
    return Settings(int(interval), int(num_steps), int(width), int(height), float(fps))


def _check_whole(name: str, value: Any, least: int, mend: str) -> None:
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"`{name}` must be {least} or more, an integer; got {value!r}. {mend}")
