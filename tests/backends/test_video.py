import importlib.util
import io

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from lerax_dist.backends import WandbBackend
from lerax_dist.backends._video import check_frames, encode_gif, encode_mp4, frame_durations


def noise(frames: int, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (frames, 12, 16, channels), dtype=np.uint8)


def durations(gif: bytes) -> list[int]:
    with Image.open(io.BytesIO(gif)) as image:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(image)]


def test_fifty_frames_a_second_are_shown_for_20_ms_each():
    assert durations(encode_gif(noise(10), fps=50.0)) == [20] * 10


def test_a_rate_that_a_gif_cannot_say_keeps_the_length_of_the_clip():
    shown = durations(encode_gif(noise(30), fps=30.0))
    assert set(shown) == {30, 40}
    assert sum(shown) == 1000


@pytest.mark.parametrize("fps", [1.0, 7.3, 24.0, 29.97, 50.0])
def test_durations_add_up_to_the_clip(fps):
    assert abs(sum(frame_durations(128, fps)) - 100 * 128 / fps) <= 0.5


def test_above_50_frames_a_second_no_frame_is_dropped_or_too_short_for_browsers():
    assert frame_durations(5, fps=1000.0) == [2] * 5


def test_equal_frames_keep_their_total_time():
    frames = noise(10)
    frames[3:8] = frames[3]
    shown = durations(encode_gif(frames, fps=50.0))
    assert len(shown) == 6
    assert sum(shown) == 200


def test_one_frame_is_a_clip():
    assert durations(encode_gif(noise(1), fps=2.0)) == [500]


def test_it_repeats_for_ever():
    with Image.open(io.BytesIO(encode_gif(noise(3), fps=50.0))) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_picture_is_the_frame(channels):
    frames = np.zeros((2, 8, 8, channels), np.uint8)
    frames[:, :, 4:, 0] = 255
    frames[1, :4] = 0
    if channels == 4:
        frames[..., 3] = 255
    with Image.open(io.BytesIO(encode_gif(frames, fps=10.0))) as image:
        image.seek(1)
        pixels = np.asarray(image.convert("RGB"))
    expected = np.broadcast_to(frames[1, ..., :3], (8, 8, 3)) if channels > 1 else frames[1]
    np.testing.assert_array_equal(pixels, np.broadcast_to(expected, (8, 8, 3)))


def test_what_is_transparent_is_black():
    frames = np.full((1, 4, 4, 4), 255, np.uint8)
    frames[:, :2, :, 3] = 0
    with Image.open(io.BytesIO(encode_gif(frames, fps=10.0))) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels[0, 0] == 0
    assert pixels[3, 3] == 255


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_other_frames_are_refused_with_their_type_and_shape(frames):
    with pytest.raises(ValueError, match=r"`frames` must be uint8 of shape .* got ") as caught:
        check_frames(frames)
    assert str(frames.dtype) in str(caught.value)
    assert str(frames.shape) in str(caught.value)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(fps):
    with pytest.raises(ValueError, match="`fps` must be positive and finite"):
        encode_gif(noise(2), fps)


@pytest.mark.parametrize("colors", [2, 256])
def test_a_drawing_keeps_its_colors(colors: int) -> None:
    frames = np.zeros((6, 16, 16, 3), np.uint8)
    palette = np.random.default_rng(1).permutation(1 << 24)[:colors]
    palette = np.stack([palette >> 16, palette >> 8 & 255, palette & 255], axis=-1)
    for shift, frame in enumerate(frames):
        frame[:] = palette[np.roll(np.arange(256) % colors, shift)].reshape(16, 16, 3)
    with Image.open(io.BytesIO(encode_gif(frames, 50.0))) as image:
        shown = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    np.testing.assert_array_equal(shown, frames)


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
def test_an_mp4_needs_a_rate(fps):
    with pytest.raises(ValueError, match="`fps` must be positive and finite"):
        encode_mp4(moving(2, 48, 64), fps)


def test_without_the_extra_the_backend_says_how_to_get_it(monkeypatch):
    WandbBackend(video_format="mp4")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install av"):
        WandbBackend(video_format="mp4")
    with pytest.raises(ValueError, match="`video_format` must be"):
        WandbBackend(video_format="avi")  # pyright: ignore[reportArgumentType] (refused)
