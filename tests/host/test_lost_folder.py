"""The folder of a run is removed or moved while it is written: no row is lost, and it is said."""

import json
import shutil
import subprocess
import time

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.journal import _journal
from tests.memory import Hangs
from tests.readers import event_rows, journal_steps

LIMIT = 30.0


def wait_for_failure(logger, text):
    deadline = time.monotonic() + LIMIT
    while not any(text in failure.message for failure in logger.failures):
        assert time.monotonic() < deadline, logger.failures
        time.sleep(0.01)


def log(logger, steps):
    for step in steps:
        logger.log({"x": float(step)}, step)


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
def test_a_folder_that_is_removed_is_made_again_with_every_row(tmp_path, monkeypatch):
    # What a backend has not got by now it must read from the file.
    monkeypatch.setattr(_journal, "_RECENT_BYTES", 2000)
    behind = Hangs("log_scalars")
    backends = [behind, ld.JSONLBackend(tmp_path), ld.TensorBoardBackend(tmp_path)]
    logger = ld.Logger(backends, "r", log_dir=tmp_path)
    log(logger, range(200))
    assert behind.began.wait(LIMIT)
    with pytest.raises(TimeoutError, match="Hangs"):
        logger.flush(1.0)
    shutil.rmtree(logger.run_dir)
    begin, step = time.monotonic(), 200  # how long it takes: see the next test
    while not any("has all its rows so far" in failure.message for failure in logger.failures):
        log(logger, [step])
        step += 1
        assert time.monotonic() - begin < LIMIT
        time.sleep(0.01)
    with pytest.raises(TimeoutError, match="Hangs"):
        logger.flush(1.0)
    assert journal_steps(logger.run_dir) == list(range(step))
    identity = json.loads((logger.run_dir / "run.json").read_text())
    assert identity == {"run_id": logger.run_id, "incarnation": 1}
    # Once more, within the last moments: closing looks again.
    behind.release.set()
    logger.flush(LIMIT)
    shutil.rmtree(logger.run_dir)
    logger.close(timeout=LIMIT)
    assert journal_steps(logger.run_dir) == list(range(step))
    assert ld.read_run(logger.run_dir).state == "finished"
    assert [step for step, _ in behind.rows] == list(range(step))
    said = {failure.where for failure in logger.failures if "was removed" in failure.message}
    assert said == {"journal", "JSONLBackend", "TensorBoardBackend"}
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path, resume="must") as again:
        assert (again.run_id, again.incarnation) == (logger.run_id, 2)


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
@pytest.mark.parametrize("rows", [True, False])
def test_a_folder_that_is_removed_is_noticed_within_a_second(tmp_path, rows):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        took, step = [], 0
        logger.flush()
        # The first may come just before the package looks, the others come just after it.
        for _ in range(4):
            shutil.rmtree(logger.run_dir)
            begin = time.monotonic()
            # The identity is restored last.
            while not (logger.run_dir / "run.json").exists():
                if rows:
                    log(logger, [step])
                    step += 1
                assert time.monotonic() - begin < LIMIT
                time.sleep(0.01)
            took.append(time.monotonic() - begin)
        wait_for_failure(logger, "has all its rows so far")
    # The best of three, as a busy machine adds its own time, and never takes any away. Without rows
    # the writer wakes once a second, which is the bound, and what it does then takes a moment.
    assert min(took[1:]) < (1.0 if rows else 1.25), took


def test_files_of_backends_that_are_removed_are_made_again_with_the_rows_that_follow(tmp_path):
    backends = [ld.JSONLBackend(tmp_path), ld.TensorBoardBackend(tmp_path)]
    logger = ld.Logger(backends, "r", log_dir=tmp_path / "journals")
    log(logger, range(5))
    logger.flush()
    shutil.rmtree(tmp_path / "r")
    with pytest.warns(ld.LoggingWarning, match="removed or moved.*lerax-dist replay") as warned:
        log(logger, range(5, 9))
        logger.close()
    assert len(warned) == 2
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 6, 7, 8]
    assert [step for step, _ in event_rows(tmp_path / "r")] == [5, 6, 7, 8]


def test_a_folder_that_is_moved_gets_the_rows_where_it_is(tmp_path):
    logger = ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path)
    log(logger, range(5))
    logger.flush()
    (tmp_path / "r").rename(tmp_path / "elsewhere")
    with pytest.warns(ld.LoggingWarning, match="was moved .*elsewhere/journal.jsonl"):
        wait_for_failure(logger, "was moved while the run is written")
    log(logger, range(5, 9))
    logger.close()
    assert journal_steps(tmp_path / "elsewhere") == list(range(9))
    assert ld.read_run(tmp_path / "elsewhere").state == "finished"


class Hides(Hangs):
    """Hides superseded rows, all from a step on; it hangs in its first row."""

    def on_resume(self, start_step):
        self.rows = [row for row in self.rows if row[0] < start_step]
        self.clips = [clip for clip in self.clips if clip[2] < start_step]


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
def test_a_backend_behind_gets_everything_from_a_folder_that_was_moved(tmp_path, monkeypatch):
    monkeypatch.setattr(_journal, "_RECENT_BYTES", 1000)
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path, resume="never") as logger:
        log(logger, range(100))
        logger.log({"eval": 0.0}, 9)
    behind = Hides("log_scalars")
    logger = ld.Logger(behind, "r", log_dir=tmp_path, resume="must")
    log(logger, range(100, 150))
    assert behind.began.wait(LIMIT)
    clip = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    logger.log_video("before", clip, 150)
    with pytest.raises(TimeoutError, match="Hides"):
        logger.flush(2.0)  # all of it is in the journal
    (tmp_path / "r").rename(tmp_path / "elsewhere")
    # It supersedes rows of its own metrics only; this backend hides all others, too.
    logger.log({"eval": 1.0}, 8)
    logger.log_video("after", clip, 151)
    wait_for_failure(logger, "was moved while the run is written")
    behind.release.set()
    logger.close(timeout=LIMIT)
    training = [step for step, metrics in behind.rows if "x" in metrics]
    assert sorted(training) == list(range(8, 150)), training
    assert [step for step, metrics in behind.rows if "eval" in metrics] == [8]
    assert [tag for tag, *_ in behind.clips] == ["before", "after"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]
    assert len(logger.failures) == 1, logger.failures


def test_another_journal_in_the_place_of_one_that_was_removed_is_left_alone(tmp_path):
    logger = ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path)
    log(logger, range(5))
    logger.flush()
    fresh = tmp_path / "fresh"
    fresh.write_text("of another run\n")
    fresh.replace(tmp_path / "r" / "journal.jsonl")
    with pytest.warns(ld.LoggingWarning, match="journal_2.jsonl has all its rows so far"):
        logger.close()
    assert (tmp_path / "r" / "journal.jsonl").read_text() == "of another run\n"
    assert list(ld.read_run(tmp_path / "r" / "journal_2.jsonl").steps) == list(range(5))


def test_a_file_that_was_removed_and_has_another_name_is_made_again(tmp_path):
    """A snapshot by hard links, as backup programs make, is not where rows go on."""
    logger = ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path)
    log(logger, range(5))
    logger.flush()
    (tmp_path / "snapshot").hardlink_to(logger.run_dir / "journal.jsonl")
    shutil.rmtree(logger.run_dir)
    with pytest.warns(ld.LoggingWarning, match="was removed .*has all its rows so far"):
        wait_for_failure(logger, "was removed")
    log(logger, range(5, 9))
    logger.close()
    assert journal_steps(logger.run_dir) == list(range(9))


def test_the_journal_of_a_file_system_that_is_unmounted_is_made_again_with_every_row(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        logger = ld.Logger(ld.NoOpBackend(), "r", log_dir=disk)
        log(logger, range(5))
        logger.flush()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    with pytest.warns(ld.LoggingWarning, match=r"was removed \(or unmounted\).*its rows so far"):
        wait_for_failure(logger, "unmounted")
    log(logger, range(5, 9))
    logger.close()
    assert journal_steps(disk / "r") == list(range(9))
