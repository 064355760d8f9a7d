"""A signal ends a job: rows on the disk, the same answer everywhere, the run `preempted`."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import lerax_dist as ld
from tests.memory import Memory
from tests.multiprocess.launch import environment, free_port
from tests.readers import journal_records

LONG_STEP = Path(__file__).parent / "host" / "workers" / "long_step.py"


def other(number: int) -> int:
    return signal.SIGUSR1 if number == signal.SIGTERM else signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_seen_and_passed_on_and_ends_the_run_as_preempted(tmp_path, number):
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        logger = ld.Logger(Memory(), "r", log_dir=tmp_path, handle_signals=True)
        logger.log({"x": 1.0}, 0)
        assert not logger.preempted
        os.kill(os.getpid(), number)
        assert logger.preempted
        assert heard == [number]
        logger.close()
        assert journal_records(tmp_path / "r")[-1].body["state"] == "preempted"
        os.kill(os.getpid(), number)
        assert heard == [number, number]
    finally:
        signal.signal(number, before)


def test_an_error_after_the_signal_is_a_failure(tmp_path):
    with (
        pytest.raises(KeyError),
        ld.Logger(Memory(), "r", log_dir=tmp_path, handle_signals=True),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError
    assert journal_records(tmp_path / "r")[-1].body["state"] == "failed"


def test_signals_are_left_alone_unless_asked_for(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == before
        assert not logger.preempted
    with ld.Logger(Memory(), "s", log_dir=tmp_path, handle_signals=True):
        pass
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_close_that_is_interrupted_at_its_end_gives_the_signals_back(tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    logger = ld.Logger(Memory(), "r", log_dir=tmp_path, handle_signals=True)
    monkeypatch.setattr("lerax_dist.process_logs.RunLogs.close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        logger.close()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_another_thread_cannot_handle_signals_and_is_told_so(tmp_path):
    errors = []

    def make():
        try:
            ld.Logger(Memory(), "r", log_dir=tmp_path, handle_signals=True)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=make, name="other")
    thread.start()
    thread.join()
    assert "signals can be handled by the main thread only, and this is 'other'" in errors[0]


@pytest.mark.launch
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_rows_are_on_the_disk_within_a_second_though_the_step_takes_longer(tmp_path, number):
    """Though `jax.distributed.initialize()` has made a handler that Python does not know of."""
    command = [sys.executable, LONG_STEP, tmp_path, str(free_port()), str(int(number))]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(1, {}),
        start_new_session=True,
    ) as process:
        limit = threading.Timer(120.0, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append((time.monotonic(), *line.split()))
            if said[-1][1] == "row" and "signalled" not in [words[1] for words in said]:
                said.append((time.monotonic(), "signalled"))
                process.send_signal(number)
        limit.cancel()
    assert process.returncode == 0
    words = [words[1] for words in said]
    assert next(rest for _, word, *rest in said if word == "child") == [
        str(-other(number)),
        "False",
    ]
    at = words.index("signalled")
    synced = words.index("synced", at)
    # By the program's own clock: this process may get it late.
    assert abs(float(said[synced][2]) - said[at][0]) < 1.0
    # The step was still under way then: there was a row to come.
    assert synced < words.index("row", at) < words.index("left")
    assert "before" in words
    assert journal_records(tmp_path / "r")[-1].body["state"] == "preempted"


@pytest.mark.launch
def test_a_program_that_exits_after_a_signal_without_close_is_preempted(tmp_path):
    program = (
        "import os, signal, sys\n"
        "import lerax_dist as ld\n"
        "logger = ld.Logger(ld.NoOpBackend(), 'r', log_dir=sys.argv[1], handle_signals=True)\n"
        "logger.log({'x': 1.0}, 0)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "assert logger.preempted\n"
        "sys.exit(0)\n"
    )
    for incarnation in (1, 2):
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=True)
        run = ld.read_run(tmp_path / "r")
        assert (run.state, len(run.incarnations)) == ("preempted", incarnation)
