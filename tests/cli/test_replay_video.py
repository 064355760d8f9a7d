"""Videos of a run come out of its journal again, in any backend."""

import jax
import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist._failures import Failures
from lerax_dist.cli import main
from lerax_dist.journal import Event, Journal
from tests.readers import event_images, journal_records
from tests.video.test_record import EXPECTED, RECORDED, X, program
from tests.video.walk import Walk


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("logs")
    with ld.LoggingCallback(
        ld.NoOpBackend(), "run", env=Walk(), log_dir=log_dir, **RECORDED
    ) as logger:
        jax.block_until_ready(program("jit", 1, logger, Walk())(X))
    return log_dir / "run"


def test_tensorboard_gets_every_clip_with_its_step(run_dir, tmp_path, capsys):
    assert main(["replay", str(run_dir), "--to", "tensorboard", "--log-dir", str(tmp_path)]) == 0
    images = event_images(tmp_path / "run")
    assert [(tag, step) for tag, step, _ in images] == [("eval/video", 32), ("eval/video", 64)]
    for (_, _, frames), expected in zip(images, EXPECTED.values(), strict=True):
        np.testing.assert_array_equal(frames, expected)
    assert "\n2 videos\n" in capsys.readouterr().err


def test_superseded_clips_and_those_whose_files_are_gone_are_left_out(run_dir, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    journal = Journal(copy / "journal.jsonl", Failures())
    records = journal_records(run_dir)
    journal.append([*records, Event(1.0, "resume", {"start_step": 64})])
    journal.close()
    assert main(["replay", str(copy), "--to", "jsonl", "--log-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "skipped 1 video: the files cannot be read" in said
    assert "skipped 2 rows that a later incarnation of the run logged again" in said
    assert not list(tmp_path.rglob("*.gif"))
