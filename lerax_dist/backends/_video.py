"""Video frames as an animated GIF, or as an mp4 by an optional package. Pure, without moviepy."""

import importlib.util
import io
from fractions import Fraction
from typing import Any

import numpy as np

# Size of a GIF's palette.
_MAX_COLORS = 256
# In hundredths of a second, the unit of a GIF: browsers show anything shorter for ten of them.
_MIN_DURATION = 2


def check_frames(frames: np.ndarray) -> np.ndarray:
    """Frames as an array that every backend can write; else raise `ValueError`."""
    frames = np.asarray(frames)
    shape_ok = frames.ndim == 4 and frames.shape[-1] in (1, 3, 4) and 0 not in frames.shape
    if frames.dtype != np.uint8 or not shape_ok:
        raise ValueError(
            "`frames` must be uint8 of shape (T, H, W, C) with C of 1, 3 or 4 and no empty axis, "
            f"got {frames.dtype} of shape {frames.shape}. "
            "Scale floats by 255 and cast; move channels last with `frames.transpose(0, 2, 3, 1)`."
        )
    return frames


def check_fps(fps: float) -> None:
    """Raise `ValueError` if `fps` is not positive, or not finite."""
    if not 0 < fps < float("inf"):
        raise ValueError(f"`fps` must be positive and finite, got {fps}. 50 is usual.")


def frame_durations(count: int, fps: float) -> list[int]:
    """Time to show each frame, in hundredths of a second.

    A GIF cannot express 33.3 ms, so 30 frames a second become 3, 4, 3, 3, 4, ...: the clip as a
    whole keeps its length to within 5 ms. Above 50 frames a second every frame is kept and shown
    for 20 ms, the shortest that browsers respect, so that such a clip plays in slow motion.
    """
    check_fps(fps)
    ends = [round(100 * (index + 1) / fps) for index in range(count)]
    starts = [0, *ends[:-1]]
    return [max(_MIN_DURATION, end - start) for start, end in zip(starts, ends, strict=True)]


def encode_gif(frames: np.ndarray, fps: float) -> bytes:
    """An endlessly repeating GIF of frames `(T, H, W, C)`: grey, RGB, or RGBA over black.

    Equal frames in a row are stored once with their times added up.
    """
    # Only a process that writes videos pays for Pillow.
    from PIL import Image

    frames = check_frames(frames)
    durations = frame_durations(len(frames), fps)
    frames = np.ascontiguousarray(_over_black(frames))
    images = _in_own_colors(frames) if frames.shape[-1] == 3 else None
    if images is None:
        pixels = frames[..., 0] if frames.shape[-1] == 1 else frames
        images = [Image.fromarray(image) for image in pixels]
    target = io.BytesIO()
    images[0].save(
        target,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[10 * hundredths for hundredths in durations],
        loop=0,
    )
    return target.getvalue()


def check_mp4() -> None:
    """Raise `ValueError` if PyAV, which writes mp4 files, is not installed."""
    if importlib.util.find_spec("av") is None:
        raise ValueError(
            '`video_format` is "mp4", which needs PyAV, which is not installed. '
            'Run `pip install av`, or use "gif".'
        )


def encode_mp4(frames: np.ndarray, fps: float) -> bytes:
    """An H.264 video of the same frames, a tenth of a GIF's size where there are many colors.

    Odd widths and heights grow by a pixel, which the format needs.
    """
    import av

    frames = check_frames(frames)
    check_fps(fps)
    frames = _over_black(frames)
    frames = np.broadcast_to(frames, (*frames.shape[:-1], 3))
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return target.getvalue()


def _over_black(frames: np.ndarray) -> np.ndarray:
    """RGBA frames as RGB over black, others as they are."""
    if frames.shape[-1] != 4:
        return frames
    alpha = frames[..., 3:].astype(np.uint16)
    return (frames[..., :3] * alpha // 255).astype(np.uint8)


def _in_own_colors(frames: np.ndarray) -> list[Any] | None:
    """RGB images that share a palette of exactly their colors; `None` if these are over 256.

    A drawing has few colors. Pillow would choose a new palette for each frame, which changes the
    colors and takes ten times as long.
    """
    from PIL import Image

    there: set[Any] = set()
    for frame in frames:
        counted = Image.fromarray(frame).getcolors(_MAX_COLORS)
        there |= {color for _, color in counted or ()}
        if counted is None or len(there) > _MAX_COLORS:
            return None
    palette = np.array(sorted(there), np.uint8)
    index = np.zeros(1 << 24, np.uint8)
    index[_as_number(palette)] = np.arange(len(palette), dtype=np.uint8)
    images = []
    for frame in frames:
        image = Image.fromarray(index[_as_number(frame)])
        image.putpalette(palette.tobytes())
        images.append(image)
    return images


def _as_number(colors: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue
