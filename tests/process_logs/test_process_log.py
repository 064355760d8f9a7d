"""The log of a process: buffered until a run is open, then in a file of each open run."""

import logging
from pathlib import Path

import pytest

from lerax_dist.process_logs._process_log import Counts, ProcessLog


@pytest.fixture
def log():
    """A handler, and a logger that has it."""
    handler, logger = ProcessLog(), logging.Logger("source")
    logger.addHandler(handler)
    yield handler, logger
    handler.close()


def messages(path):
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()]


def test_records_from_before_a_run_come_first_in_its_file(log, tmp_path):
    handler, logger = log
    logger.info("early")
    path = tmp_path / "logs" / "a.log"
    handler.attach(path)
    logger.warning("late")
    assert messages(path) == ["source: early", "source: late"]
    handler.detach(path)
    logger.info("between")
    handler.attach(tmp_path / "b.log")
    assert messages(tmp_path / "b.log") == ["source: between"]
    assert messages(path) == ["source: early", "source: late"]


def test_a_process_without_records_has_no_file(log, tmp_path):
    log[0].attach(tmp_path / "logs" / "a.log")
    assert list(tmp_path.iterdir()) == []


def test_the_buffer_is_bounded_and_the_gap_is_marked(log, tmp_path):
    handler, logger = log
    for number in range(5000):
        logger.info("%d", number)
    handler.attach(tmp_path / "a.log")
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert len(lines) == 2201
    assert lines[0].endswith(": 0") and lines[199].endswith(": 199")
    assert lines[200] == "... 2800 lines dropped ..."
    assert lines[201].endswith(": 3000") and lines[-1].endswith(": 4999")


def test_two_open_runs_both_get_every_record(log, tmp_path):
    handler, logger = log
    handler.attach(tmp_path / "a.log")
    handler.attach(tmp_path / "b.log")
    logger.info("both")
    handler.detach(tmp_path / "a.log")
    logger.info("one")
    assert messages(tmp_path / "a.log") == ["source: both"]
    assert messages(tmp_path / "b.log") == ["source: both", "source: one"]


def test_a_folder_that_cannot_be_created_is_reported_once(log, tmp_path, capsys):
    handler, logger = log
    (tmp_path / "file").write_text("")
    handler.attach(tmp_path / "file" / "logs" / "a.log")
    logger.info("one")
    logger.info("two")
    (line,) = capsys.readouterr().err.splitlines()
    assert "failed to write" in line and "a.log" in line


def test_buffered_records_go_once_to_the_first_file_that_can_be_written(log, tmp_path):
    handler, logger = log
    (tmp_path / "file").write_text("")
    for number in range(5000):
        logger.info("%d", number)
    handler.attach(tmp_path / "file" / "a.log")
    handler.attach(tmp_path / "b.log")
    lines = (tmp_path / "b.log").read_text().splitlines()
    assert len(lines) == 2201
    assert lines[200] == "... 2800 lines dropped ..."
    handler.detach(tmp_path / "b.log")
    handler.attach(tmp_path / "file" / "a.log")
    logger.info("once")
    handler.attach(tmp_path / "c.log")
    assert messages(tmp_path / "c.log") == ["source: once"]


def test_a_full_disk_is_reported_once_and_nothing_is_raised(log, tmp_path, capsys):
    handler, logger = log
    logger.info("early")
    handler.attach(Path("/dev/full"))
    logger.info("late")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "lerax_dist: failed to write /dev/full (No space left on device); this log is disabled"
    )
    handler.attach(tmp_path / "a.log")
    assert messages(tmp_path / "a.log") == ["source: early", "source: late"]


def test_warnings_and_errors_are_counted_until_the_last_run_is_closed(log, tmp_path):
    handler, logger = log
    handler.attach(tmp_path / "a.log")
    logger.info("fine")
    logger.warning("odd\nand more")
    logger.error("broken")
    logger.warning("odd again")
    assert handler.counts == Counts(2, 1, "ERROR source: broken")
    handler.detach(tmp_path / "a.log")
    assert handler.counts == Counts()


def test_the_newest_warning_is_kept_until_there_is_an_error():
    counts = Counts().plus(logging.WARNING, "a").plus(logging.WARNING, "b")
    assert counts == Counts(2, 0, "b")
