"""Whether a writer is alive is seen by what changes, not by what the clocks of two hosts say."""

import os
from pathlib import Path

from lerax_dist.journal import Heartbeat, Liveness
from tests.journal.journals import extend, opened, write


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def run(folder: Path, modified: float) -> Path:
    """A run whose files were last changed at a time in seconds since the epoch."""
    path = write(folder, [opened()])
    (folder / "run.json").write_text("{}\n")
    for file in (path, folder / "run.json"):
        os.utime(file, (modified, modified))
    return path


def test_one_look_compares_the_file_with_the_clock_of_the_reader(tmp_path):
    path = run(tmp_path, 1000.0)
    for now, alive in ((1059.0, True), (1061.0, False), (900.0, True)):
        assert Liveness(path, Clock(0.0), Clock(now)).is_alive() is alive


def test_a_watcher_sees_changes_by_its_own_clock_however_wrong_the_others_are(tmp_path):
    path = run(tmp_path, 1000.0)
    clock = Clock(5.0)
    liveness = Liveness(path, clock, Clock(9e9))
    assert not liveness.is_alive()  # its clock is years ahead
    os.utime(tmp_path / "run.json", (1010.0, 1010.0))
    assert liveness.is_alive()
    clock.now += 59.0
    assert liveness.is_alive()
    extend(path, b"a row\n")
    os.utime(path, (1000.0, 1000.0))
    clock.now += 59.0
    assert liveness.is_alive()
    clock.now += 61.0
    assert not liveness.is_alive()


def test_a_run_without_files_is_not_alive(tmp_path):
    assert not Liveness(tmp_path / "journal.jsonl").is_alive()


def test_heartbeats_are_seen_and_come_once_in_ten_seconds(tmp_path):
    run(tmp_path, 1000.0)
    clock = Clock(50.0)
    heartbeat = Heartbeat(clock)
    modified = []
    for _ in range(25):
        clock.now += 1.0
        heartbeat.beat(tmp_path)
        modified.append((tmp_path / "run.json").stat().st_mtime_ns)
        os.utime(tmp_path / "run.json", (1000.0, 1000.0))
    beats = [place for place, time in enumerate(modified, 1) if time != 1000 * 10**9]
    assert beats == [10, 20]
    assert (tmp_path / "run.json").read_text() == "{}\n"


def test_a_heartbeat_that_fails_stops_nothing(tmp_path):
    clock = Clock(0.0)
    heartbeat = Heartbeat(clock)
    clock.now = 100.0
    heartbeat.beat(tmp_path / "gone")
