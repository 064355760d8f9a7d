"""Video frames to an mp4 that browsers play, by an optional package."""

import importlib.util
import io
from fractions import Fraction

import numpy as np

from lerax_dist.backends._gif import check_fps, check_frames


def check_mp4() -> None:
    """Check that mp4s can be made here.

    Raises:
        ValueError: the package for it is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise ValueError(
            '`video_format` is "mp4", which needs PyAV. Install it: '
            'pip install "lerax-dist[mp4]", or use "gif".'
        )


def encode_mp4(frames: np.ndarray, fps: float) -> bytes:
    """An H.264 video of `frames`, a tenth of a GIF's size where there are many colours.

    Odd widths and heights grow by a pixel, which the format asks for. The alpha channel, if there
    is one, is laid over black.

    Args:
        frames: `uint8` array of shape `(T, H, W, C)`, C being 1 (grey), 3 (RGB) or 4 (RGBA).
        fps: frames a second.

    Raises:
        ValueError: `frames` or `fps` is not of that kind.
    """
    import av

    frames = check_frames(frames)
    check_fps(fps)
    if frames.shape[-1] == 4:
        alpha = frames[..., 3:].astype(np.uint16)
        frames = (frames[..., :3] * alpha // 255).astype(np.uint8)
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
