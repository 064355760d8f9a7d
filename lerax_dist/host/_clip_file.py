"""A clip in a file, without loss: an animated PNG, which browsers play."""

import os
from pathlib import Path

import numpy as np

_MOST_MILLISECONDS = 65_535
"""That a PNG can say of one frame."""


def save_clip(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write a clip, all at once or not at all.

    A frame that equals the one before it is stored as time only.

    Args:
        path: where to; its folder is made.
        frames: `uint8` array of shape `(T, H, W, C)`, C being 1 (grey), 3 (RGB) or 4 (RGBA).
        fps: frames a second; the file plays at the nearest whole number of milliseconds a frame.

    Raises:
        OSError: it cannot be written.
    """
    # Only a process that writes videos pays for Pillow.
    from PIL import Image

    pixels = frames[..., 0] if frames.shape[-1] == 1 else frames
    images = [Image.fromarray(np.ascontiguousarray(image)) for image in pixels]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        images[0].save(
            file,
            format="PNG",
            save_all=True,
            append_images=images[1:],
            duration=_frame_time(len(frames), fps),
            loop=0,
            blend=0,
            compress_level=3,
        )
    os.replace(fresh, path)


def load_clip(path: Path, count: int, fps: float) -> np.ndarray:
    """The frames of a clip, as they were saved.

    Args:
        path: the file.
        count: how many frames were saved.
        fps: as they were saved.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds another number of frames.
    """
    from PIL import Image, ImageSequence

    frame_time = _frame_time(count, fps)
    frames: list[np.ndarray] = []
    with Image.open(path) as clip:
        if getattr(clip, "n_frames", 1) == 1:
            frames = [np.array(clip)] * count
        else:
            for image in ImageSequence.Iterator(clip):
                times = round(float(image.info["duration"]) / frame_time)
                frames += [np.array(image)] * times
    if len(frames) != count:
        raise ValueError(f"{path} holds {len(frames)} frames, not {count}")
    stacked = np.stack(frames)
    return stacked[..., None] if stacked.ndim == 3 else stacked


def _frame_time(count: int, fps: float) -> int:
    """Milliseconds a frame: whole, and so few that even a clip that stands still can be told."""
    return max(1, min(round(1000 / fps), _MOST_MILLISECONDS // count))
