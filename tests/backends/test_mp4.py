import importlib.util
import io

import av
import numpy as np
import pytest

from lerax_dist.backends import WandbBackend
from lerax_dist.backends._mp4 import encode_mp4


def moving(count: int, height: int, width: int) -> np.ndarray:
    frames = np.full((count, height, width, 3), 255, np.uint8)
    for place, frame in enumerate(frames):
        frame[10:30, 4 * place : 4 * place + 20] = (200, 40, 40)
    return frames


def decoded(mp4: bytes) -> tuple[np.ndarray, float]:
    with av.open(io.BytesIO(mp4), mode="r") as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames), float(rate or 0)


def test_every_frame_is_there_and_nearly_as_it_was():
    frames = moving(12, 48, 64)
    back, rate = decoded(encode_mp4(frames, 25.0))
    assert (back.shape, rate) == (frames.shape, 25.0)
    assert np.abs(back.astype(int) - frames).mean() < 3


def test_odd_sizes_grow_by_a_pixel():
    back, _ = decoded(encode_mp4(moving(3, 47, 63), 50.0))
    assert back.shape == (3, 48, 64, 3)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_frames_are_shown_as_in_a_gif(channels):
    frames = np.full((2, 16, 16, channels), 128, np.uint8)
    back, _ = decoded(encode_mp4(frames, 50.0))
    assert abs(int(back.mean()) - (128 if channels == 1 else 64)) <= 2


@pytest.mark.parametrize("fps", [0.0, -1.0, float("inf")])
def test_a_rate_that_is_none_is_refused(fps):
    with pytest.raises(ValueError, match="`fps` must be positive and finite"):
        encode_mp4(moving(2, 48, 64), fps)


def test_without_the_extra_the_backend_says_how_to_get_it(monkeypatch):
    WandbBackend(video_format="mp4")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "lerax-dist\[mp4\]"'):
        WandbBackend(video_format="mp4")
    with pytest.raises(ValueError, match="`video_format` must be"):
        WandbBackend(video_format="avi")  # pyright: ignore[reportArgumentType] (refused)
