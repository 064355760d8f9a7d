import numpy as np

from lerax_dist.backends._plain import format_hparams, format_row, format_video, is_due
from lerax_dist.backends._progress import Progress


def test_a_line_has_progress_then_the_charted_metric_then_the_others():
    progress = Progress(now=0.0)
    progress.begin(100_000, now=0.0)
    progress.advance(2_345, now=2.0)
    progress.advance(12_345, now=62.0)
    row = {"train/loss": np.array(0.01), "episode/return": np.array(123.42)}
    assert format_row(progress, row, "episode/return", now=62.0) == (
        "step 12,345  12.3%  elapsed 1m02s  ETA 8m45s  episode/return=123.4  train/loss=0.01"
    )


def test_of_an_unknown_length_there_is_a_count_only():
    progress = Progress(now=0.0)
    progress.advance(12, now=1.0)
    assert format_row(progress, {}, None, now=1.0) == "step 12  elapsed 1s"


def test_the_first_row_is_due_at_once_and_others_after_the_interval():
    assert is_due(None, now=0.0, interval=10.0)
    assert not is_due(0.0, now=9.9, interval=10.0)
    assert is_due(0.0, now=10.0, interval=10.0)


def test_hyperparameters_are_one_line():
    assert format_hparams({"lr": 0.1, "policy.width": 64}) == "hparams  lr=0.1  policy.width=64"


def test_a_video_is_told_of():
    line = format_video("eval/video", (128, 480, 640, 3), 12_345)
    assert line == "video eval/video: 128 frames 640x480 at step 12,345"
