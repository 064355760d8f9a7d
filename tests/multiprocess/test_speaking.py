"""`get_logger` in real processes: one console, a file each, and warnings reported on process 0."""

import socket
from pathlib import Path

from tests.multiprocess.launch import launch

WORKER = Path(__file__).parent / "workers" / "speaking.py"


def test_one_console_a_file_each_and_warnings_of_others_are_reported(tmp_path):
    results = launch(WORKER, str(tmp_path), processes=2, timeout=120)
    shown = [line.split(" ", 1)[1] for line in results[0].stderr.splitlines() if line[2:3] == ":"]
    folder = tmp_path / "r" / "logs"
    assert shown[0] == "INFO train: before anything"
    assert shown[1].startswith("INFO lerax_dist: Process 0 of 2")
    reported = (
        f"WARNING lerax_dist: 1 error and 32 warnings on process 1 ({socket.gethostname()}). "
        f"Process 1: ERROR train: broken (more in {folder})"
    )
    steps = [f"INFO train: step {step}" for step in range(5)]
    assert shown[2:] == ["INFO train: hello from 0", *steps, reported, "INFO train: after"]
    mine, theirs = (
        (folder / f"process_000{index}.log").read_text().splitlines() for index in range(2)
    )
    lines = [line.split(" ", 2)[2] for line in mine]
    # What comes after the run is in no file.
    assert lines == shown[:-1]
    text = "\n".join(theirs)
    assert "INFO train: before anything" in theirs[0]
    assert [line for line in theirs if " WARNING train: odd" in line][29].endswith("odd 29")
    assert "ValueError: on purpose" in text and "DeprecationWarning: old ways" in text
    assert theirs[-1].endswith("INFO train: from a forked process")
