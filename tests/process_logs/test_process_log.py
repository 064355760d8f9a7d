import logging
from pathlib import Path

import pytest

from lerax_dist.process_logs._process_log import Counts, ProcessLog, count


@pytest.fixture
def log():
    """A log of its own, and the logger that it hears."""
    handler, logger = ProcessLog(), logging.Logger("speaker")
    logger.addHandler(handler)
    yield handler, logger
    handler.close()


def said(path):
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()]


def test_what_was_said_before_a_run_is_in_its_file_first(log, tmp_path):
    handler, logger = log
    logger.info("early")
    path = tmp_path / "logs" / "a.log"
    handler.attach(path)
    logger.warning("late")
    assert said(path) == ["speaker: early", "speaker: late"]
    handler.detach(path)
    logger.info("between")
    handler.attach(tmp_path / "b.log")
    assert said(tmp_path / "b.log") == ["speaker: between"]
    assert said(path) == ["speaker: early", "speaker: late"]


def test_a_process_that_says_nothing_has_no_file(log, tmp_path):
    log[0].attach(tmp_path / "logs" / "a.log")
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_without_a_run_is_bounded_and_the_gap_is_told(log, tmp_path):
    handler, logger = log
    for number in range(5000):
        logger.info("%d", number)
    handler.attach(tmp_path / "a.log")
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert len(lines) == 2201
    assert lines[0].endswith(": 0") and lines[199].endswith(": 199")
    assert lines[200] == "... 2800 lines are not kept ..."
    assert lines[201].endswith(": 3000") and lines[-1].endswith(": 4999")


def test_two_runs_that_are_open_have_every_line(log, tmp_path):
    handler, logger = log
    handler.attach(tmp_path / "a.log")
    handler.attach(tmp_path / "b.log")
    logger.info("both")
    handler.detach(tmp_path / "a.log")
    logger.info("one")
    assert said(tmp_path / "a.log") == ["speaker: both"]
    assert said(tmp_path / "b.log") == ["speaker: both", "speaker: one"]


def test_a_folder_that_cannot_be_made_is_told_once(log, tmp_path, capsys):
    handler, logger = log
    (tmp_path / "file").write_text("")
    handler.attach(tmp_path / "file" / "logs" / "a.log")
    logger.info("one")
    logger.info("two")
    (line,) = capsys.readouterr().err.splitlines()
    assert "no log in" in line and "a.log" in line


def test_what_no_file_took_is_kept_whole_and_once_for_the_next(log, tmp_path):
    handler, logger = log
    (tmp_path / "file").write_text("")
    for number in range(5000):
        logger.info("%d", number)
    handler.attach(tmp_path / "file" / "a.log")
    handler.attach(tmp_path / "b.log")
    lines = (tmp_path / "b.log").read_text().splitlines()
    assert len(lines) == 2201
    assert lines[200] == "... 2800 lines are not kept ..."
    handler.detach(tmp_path / "b.log")
    handler.attach(tmp_path / "file" / "a.log")
    logger.info("once")
    handler.attach(tmp_path / "c.log")
    assert said(tmp_path / "c.log") == ["speaker: once"]


def test_a_disk_that_is_full_is_told_once_and_nothing_is_raised(log, tmp_path, capsys):
    handler, logger = log
    logger.info("early")
    handler.attach(Path("/dev/full"))
    logger.info("late")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "lerax_dist: no log in /dev/full (No space left on device)"
    handler.attach(tmp_path / "a.log")
    assert said(tmp_path / "a.log") == ["speaker: early", "speaker: late"]


def test_warnings_and_errors_are_counted_until_the_last_run_is_closed(log, tmp_path):
    handler, logger = log
    handler.attach(tmp_path / "a.log")
    logger.info("fine")
    logger.warning("odd\nand more")
    logger.error("broken")
    logger.warning("odd again")
    assert handler.counts == Counts(2, 1, "ERROR speaker: broken")
    handler.detach(tmp_path / "a.log")
    assert handler.counts == Counts()


def test_the_newest_warning_is_kept_until_there_is_an_error():
    counts = count(count(Counts(), logging.WARNING, "a"), logging.WARNING, "b")
    assert counts == Counts(2, 0, "b")
