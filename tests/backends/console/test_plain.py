import numpy as np

from lerax_dist.backends.console._plain import (
    format_facts,
    format_hparams,
    format_row,
    format_video,
    is_due,
)
from lerax_dist.backends.console._view import RunView


def view(*rows: tuple[int, float], total: int = 0, **metrics: float) -> RunView:
    made = RunView("run", "episode/return", now=0.0)
    made.progress.begin(total, now=0.0)
    for step, now in rows:
        made.add({name: np.array(value) for name, value in metrics.items()}, step, now)
    return made


def line(made: RunView, now: float, chosen=None) -> str:
    return format_row(made, made.latest, chosen, now)


def test_a_line_has_progress_then_the_charted_metric_then_the_others():
    row = {"train/loss": 0.01, "episode/return": 123.42}
    made = view((2_345, 2.0), (12_345, 62.0), total=100_000, **row)
    assert line(made, now=62.0) == (
        "step 12,345  12.3%  elapsed 1m02s  ETA 8m45s  episode/return=123.4  train/loss=0.01"
    )


def test_of_an_unknown_length_there_is_a_count_only():
    assert line(view((12, 1.0)), now=1.0) == "step 12  elapsed 1s"


def test_a_line_holds_as_many_metrics_as_fit_and_counts_the_others():
    made = view((12, 1.0), **{f"layers/{i}/gradient_norm": i for i in range(64)})
    said = line(made, now=1.0)
    shown = said.count("gradient_norm")
    assert len(said) <= 210 and shown > 4
    assert said.endswith(f"  +{64 - shown} more")


def test_a_line_holds_what_was_chosen_whatever_its_length():
    made = view((12, 1.0), **{f"layers/{i}/norm": i for i in range(64)}, other=1.0)
    assert line(made, 1.0, ["layers/*"]).count("norm=") == 64
    assert line(made, 1.0, ["other", "layers/7/norm"]) == (
        "step 12  elapsed 1s  layers/7/norm=7  other=1"
    )


def test_of_logging_itself_a_line_tells_only_what_is_wrong():
    made = view(
        *[(12, 1.0)],
        **{
            "lerax_dist/lag/WandbBackend": 5_000,
            "lerax_dist/lag/Other": 5,
            "lerax_dist/lag/Mine": float("inf"),
            "loss": 1.0,
        },
    )
    assert line(made, 1.0) == (
        "step 12  elapsed 1s  WandbBackend 5,000 behind  Mine disabled  loss=1"
    )


def test_the_first_row_is_due_at_once_and_others_after_the_interval():
    assert is_due(None, now=0.0, interval=10.0)
    assert not is_due(0.0, now=9.9, interval=10.0)
    assert is_due(0.0, now=10.0, interval=10.0)


def test_where_it_runs_is_one_line():
    facts = {"launcher": "slurm", "process_count": 2, "device_count": 2, "host": "n1"}
    assert format_facts(facts) == "slurm  2 processes × 1 device  on n1"
    assert format_facts({}) == ""


def test_hyperparameters_are_one_line():
    assert format_hparams({"lr": 0.1, "policy.width": 64}) == "hparams  lr=0.1  policy.width=64"


def test_a_video_is_told_of():
    line = format_video("eval/video", (128, 480, 640, 3), 12_345)
    assert line == "video eval/video: 128 frames 640x480 at step 12,345"


def test_a_metric_of_members_is_shown_with_its_range():
    row = {
        "train/loss": 1.25,
        "train/loss/member_min": 0.5,
        "train/loss/member_max": 2.0,
        "train/loss/member_std": 0.4,
        "mine/member_min": 3.0,
    }
    made = view((12, 1.0), total=0, **row)
    assert line(made, 1.0) == "step 12  elapsed 1s  train/loss=1.25 [0.5, 2]  mine/member_min=3"
    chosen = ["train/*", "train/loss/member_std"]
    said = "step 12  elapsed 1s  train/loss=1.25 [0.5, 2]  train/loss/member_std=0.4"
    assert line(made, 1.0, chosen) == said
