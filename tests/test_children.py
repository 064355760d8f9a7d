"""Children of a process that logs: they hold nothing of its logger, and make no runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lerax_dist as ld
from tests.backends.console.terminal import Terminal
from tests.readers import event_rows, journal_rows, kept_by_jsonl

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


FORKS = """
import logging, os, sys
import lerax_dist as ld

ld.setup_logging(console=False)
backends = [ld.JSONLBackend(sys.argv[1]), ld.TensorBoardBackend(sys.argv[1])]
with ld.Logger(backends, "r", log_dir=sys.argv[1]) as logger:
    log = logging.getLogger("program")
    log.warning("of the parent")
    logger.log({"x": 0.0}, 0)
    logger.flush()
    pid = os.fork()
    if pid == 0:
        print("printed", flush=True)
        for i in range(200):
            log.warning("of the child %d %s", i, "x" * 9000)
        logger.close()
        os._exit(0)  # as a worker of `multiprocessing` does
    for i in range(200):
        log.warning("of the parent %d %s", i, "y" * 9000)
    assert os.waitpid(pid, 0)[1] == 0
    logger.log({"x": 1.0}, 1)
"""


def test_what_a_fork_logs_is_in_the_log_of_its_process_and_what_it_prints_is_not(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FORKS, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "printed\n"), done.stderr
    # Whole lines of both, each once: a worker's warnings belong to its process.
    text = (tmp_path / "r" / "logs" / "process_0000.log").read_text()
    said = sorted(line.split("program: ")[-1] for line in text.splitlines() if "program:" in line)
    expected = [f"of the child {i} {'x' * 9000}" for i in range(200)]
    expected += [f"of the parent {i} {'y' * 9000}" for i in range(200)]
    assert said == sorted([*expected, "of the parent"])
    assert "printed" not in text
    # Its end neither ends the run nor writes for it.
    rows = [(0, {"x": 0.0}), (1, {"x": 1.0})]
    assert journal_rows(tmp_path / "r") == event_rows(tmp_path / "r") == rows
    assert ld.read_run(tmp_path / "r").state == "finished"
    assert kept_by_jsonl(tmp_path / "r") == {"x": [(0, 0.0), (1, 1.0)]}
