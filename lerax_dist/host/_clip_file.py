"""A clip as a lossless file: an animated PNG, which browsers play."""

import functools
from pathlib import Path

import numpy as np

from lerax_dist.journal import replace_file

# Longest duration of one frame that an animated PNG can hold: 16 bits (fcTL chunk, `delay_num`).
_MAX_MILLISECONDS = 65_535


def save_clip(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write a clip, completely or not at all.

    A frame that equals the one before it only lengthens that frame's duration.

    Args:
        path: the file; its folder is created.
        frames: `uint8` array of shape `(T, H, W, C)`, C being 1 (grayscale), 3 (RGB) or 4 (RGBA).
        fps: frames per second; each frame's duration is rounded to whole milliseconds.
    """
    # Imported here: only a process that writes videos pays for Pillow.
    from PIL import Image

    pixels = frames[..., 0] if frames.shape[-1] == 1 else frames
    images = [Image.fromarray(np.ascontiguousarray(image)) for image in pixels]
    path.parent.mkdir(parents=True, exist_ok=True)
    save = functools.partial(
        images[0].save,
        format="PNG",
        save_all=True,
        append_images=images[1:],
        duration=_frame_time(len(frames), fps),
        loop=0,
        blend=0,
        compress_level=3,
    )
    replace_file(path, save)


def load_clip(path: Path, count: int, fps: float) -> np.ndarray:
    """Read the frames of a clip as `save_clip` got them, `count` at `fps`.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it holds another number of frames.
    """
    from PIL import Image, ImageSequence

    frame_time = _frame_time(count, fps)
    frames: list[np.ndarray] = []
    with Image.open(path) as clip:
        if getattr(clip, "n_frames", 1) == 1:
            frames = [np.array(clip)] * count
        else:
            for image in ImageSequence.Iterator(clip):
                repeats = round(float(image.info["duration"]) / frame_time)
                frames += [np.array(image)] * repeats
    if len(frames) != count:
        raise ValueError(f"{path} holds {len(frames)} frames, not {count}")
    stacked = np.stack(frames)
    return stacked[..., None] if stacked.ndim == 3 else stacked


def _frame_time(count: int, fps: float) -> int:
    """Whole milliseconds per frame, so short that the duration of `count` equal frames still fits.

    Equal frames become one long frame, and `load_clip` divides its duration by this number.
    """
    return max(1, min(round(1000 / fps), _MAX_MILLISECONDS // count))
