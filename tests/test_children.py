"""Children of a process that logs: they hold nothing of its logger, and make no runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lerax_dist as ld
from tests.backends.console.terminal import Terminal
from tests.readers import journal_rows

WORKERS = Path(__file__).parent / "workers"


def test_a_killed_run_is_continued_though_its_forked_worker_lives(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, WORKERS / "forked.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    try:
        os.kill(worker, 0)  # it lives
        with ld.Logger(ld.NoOpBackend(), "my-run", log_dir=tmp_path) as logger:
            assert (logger.name, logger.incarnation) == ("my-run", 2)
    finally:
        os.kill(worker, signal.SIGKILL)
    assert journal_rows(tmp_path / "my-run") == [(0, {"loss": 1.0}), (1, {"loss": 3.0})]


def test_a_logger_at_module_level_makes_no_runs_in_spawned_workers(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, WORKERS / "spawned.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "[\"'' multiprocessing\"]\n"
    assert len(list(tmp_path.iterdir())) == 1
    assert 1 <= done.stderr.count("makes a logger, which writes nothing") <= 2
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_a_fork_prints_under_the_live_display(tmp_path: Path):
    terminal = Terminal([sys.executable, str(WORKERS / "shown.py"), str(tmp_path)], 100, 30)
    assert terminal.finish() == 0
    assert terminal.raw.count(b"said by a fork TextIOWrapper") == 2
    assert terminal.raw.count(b"drawn by a fork") == 2
    assert b"the parent goes on" in terminal.raw
