"""Journals of format 1, written by lerax_dist 0.1.0 before its format had a version, stay readable.

The files are fixtures: they are never written again. `resumed` failed, went on at step 106 and was
killed within a line, and went on at step 110 and failed; `killed` ends within a line; `video` has
two clips.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.cli import main
from lerax_dist.journal import Damage
from tests.journal.journals import age
from tests.readers import event_images

FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1"
FIRST = list(range(100, 110))
HPARAMS = {"net.width": 64, "net.act": "tanh", "big": 2**70, "clip": "Infinity", "none": None}


@pytest.fixture
def logs(tmp_path):
    shutil.copytree(FORMAT_1, tmp_path / "logs")
    # As they were written, one after the other: a copy has times of its own.
    for seconds, name in ((300.0, "resumed"), (200.0, "killed"), (100.0, "video")):
        age(tmp_path / "logs" / name, seconds)
    return tmp_path / "logs"


def test_a_resumed_run(logs):
    run = ld.read_run(logs / "resumed")
    assert (run.name, run.run_id, run.state) == ("resumed", "fce640fffb4a", "failed")
    assert run.hparams == {"lr": 0.125, **HPARAMS}
    starts = [(each.number, each.start_step, each.state) for each in run.incarnations]
    assert starts == [(1, None, "failed"), (2, 106, None), (3, 110, "failed")]
    assert run.facts["versions"]["lerax_dist"] == "0.1.0"
    steps, losses = run["train/loss"]
    assert steps.tolist() == [*range(100, 106), 108, 110, 112]
    np.testing.assert_array_equal(losses, [*(1 / np.arange(1.0, 7.0)), -8.0, 100.0, 120.0])
    # Rows that share a step are both there.
    assert run.steps.tolist().count(100) == run.steps.tolist().count(104) == 2
    assert run["eval/score"].values.tolist() == [0.0, 1.0]
    assert run["eval/return"].steps.tolist() == [100, 103]
    for name, value in (("nan", np.nan), ("inf", np.inf), ("ninf", -np.inf)):
        assert run[name].steps.tolist() == [104]
        np.testing.assert_equal(run[name].values, [value])
    assert run["big"].values[4] == 4e300
    assert (len(run), run.superseded) == (11, 6)
    assert run.damage == Damage(lines=1)


def test_a_run_that_was_killed_within_a_line(logs):
    run = ld.read_run(logs / "killed" / "journal.jsonl")
    assert (run.state, run.damage) == ("interrupted", Damage(torn=True))
    assert run["train/loss"].steps.tolist() == FIRST
    assert run.hparams == {"lr": 0.5, **HPARAMS}


def test_a_run_with_videos(logs):
    run = ld.read_run(logs / "video")
    assert (run.state, len(run), run.damage) == ("finished", 9, Damage())
    assert run.iterations.tolist() == list(range(1, 10))
    clips = [event.body for event in run.events if event.kind == "video"]
    assert [(clip["step"], clip["file"][-16:]) for clip in clips] == [
        (32, "000000000032.png"),
        (64, "000000000064.png"),
    ]


def test_it_is_listed_and_replayed_and_goes_on(logs, capsys):
    assert main(["ls", str(logs)]) == 0
    table = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    assert table == [
        ["resumed", "failed", "112"],
        ["killed", "interrupted", "109"],
        ["video", "finished", "72"],
    ]
    assert main(["replay", str(logs / "video"), "--to", "tensorboard"]) == 0
    assert [step for _, step, _ in event_images(logs / "video")] == [32, 64]
    before = (logs / "killed" / "journal.jsonl").read_bytes()
    with ld.Logger(ld.NoOpBackend(), "killed", log_dir=logs, resume="must") as logger:
        logger.log({"train": {"loss": 7.0}}, 105)
    assert (logs / "killed" / "journal.jsonl").read_bytes().startswith(before)
    run = ld.read_run(logs / "killed")
    assert run["train/loss"].steps.tolist() == [*range(100, 105), 105]
    assert run["train/loss"].values[-1] == 7.0
    assert run.state == "finished" and run.damage == Damage(lines=1)
