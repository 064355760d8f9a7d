"""Clips in files come back bit for bit."""

import numpy as np
import pytest
from PIL import Image

from lerax_dist.host._clip_file import load_clip, save_clip

RANDOM = np.random.default_rng(0)


def noise(count, channels):
    return RANDOM.integers(0, 256, (count, 8, 9, channels), dtype=np.uint8)


STILL = np.repeat(noise(1, 3), 7, axis=0)
BLINKING = np.zeros((5, 8, 9, 3), np.uint8)
BLINKING[2, 3, 3] = 7
LONG = np.zeros((4000, 2, 2, 3), np.uint8)
LONG[0] = 1


@pytest.mark.parametrize(
    "frames",
    [
        *(noise(count, channels) for count in (1, 2, 7) for channels in (1, 3, 4)),
        STILL,
        np.concatenate([STILL, noise(1, 3), STILL, STILL]),
        BLINKING,
        LONG,
    ],
)
@pytest.mark.parametrize("fps", [50.0, 59.94, 0.01, 5000.0])
def test_every_frame_comes_back(tmp_path, frames, fps):
    path = tmp_path / "videos" / "clip.png"
    save_clip(path, frames, fps)
    back = load_clip(path, len(frames), fps)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, frames)
    assert [file.name for file in path.parent.iterdir()] == ["clip.png"]


def test_a_browser_finds_an_animation_of_the_right_speed(tmp_path):
    path = tmp_path / "clip.png"
    save_clip(path, noise(6, 3), 50.0)
    with Image.open(path) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("PNG", 6)
        assert image.info["duration"] == 20.0


def test_a_file_with_other_contents_raises(tmp_path):
    path = tmp_path / "clip.png"
    save_clip(path, noise(6, 3), 50.0)
    with pytest.raises(ValueError, match="holds 6 frames, not 5"):
        load_clip(path, 5, 50.0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises((OSError, SyntaxError)):
        load_clip(path, 6, 50.0)
