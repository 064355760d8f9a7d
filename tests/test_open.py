"""A logger that cannot be made leaves nothing: the same call works once the cause is gone."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import lerax_dist as ld
from tests.loop import run_threads
from tests.memory import Memory
from tests.readers import journal_records


@ld.ProcessGroup.register
class Forgetful:
    """A group on its own that cannot say, once the run is taken, which hosts there are."""

    def __init__(self):
        self._group = ld.SoloGroup()

    @property
    def hosts(self):
        raise ConnectionError("the service is gone")

    def __getattr__(self, name):
        return getattr(self._group, name)


@pytest.mark.parametrize("axis_name", [5, ("d", 5), [None], b"d", {"d"}])
def test_axes_that_are_no_names_are_refused_before_anything_opens(tmp_path, axis_name):
    with pytest.raises(TypeError, match="`axis_name` must be the name of a mesh axis, a sequence"):
        ld.LoggingCallback(Memory(), "r", log_dir=tmp_path, axis_name=axis_name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("axis_name", [None, "d", ("d", "e"), ["d"], ()])
def test_axes_are_names(tmp_path, axis_name):
    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path, axis_name=axis_name):
        pass


@pytest.mark.parametrize("open_timeout", [None, "60", -1, float("nan"), float("inf")])
def test_a_time_that_cannot_be_waited_is_refused_before_anything_opens(tmp_path, open_timeout):
    with pytest.raises(ValueError, match="`open_timeout` must be a finite number of seconds"):
        ld.Logger(Memory(), "r", log_dir=tmp_path, open_timeout=open_timeout)
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_is_deleted_is_not_known_and_no_obstacle(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with ld.Logger(Memory(), "r", log_dir=tmp_path):
        pass
    assert journal_records(tmp_path / "r")[0].body["directory"] is None


def test_a_run_that_cannot_start_is_free_for_the_next_call(tmp_path):
    group: Any = Forgetful()
    with pytest.raises(ConnectionError):
        ld.Logger(Memory(), "r", log_dir=tmp_path, group=group)
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        assert logger.name == "r"


def test_ctrl_c_while_backends_open_ends_the_run_as_failed(tmp_path):
    program = """
        import os, signal, sys, threading
        import lerax_dist as ld
        from tests.memory import Memory

        interrupted = threading.Event()

        def on_interrupt(*_):
            interrupted.set()
            raise KeyboardInterrupt

        class Waits(Memory):
            def open(self, name):
                os.kill(os.getpid(), signal.SIGINT)
                interrupted.wait()

        signal.signal(signal.SIGINT, on_interrupt)
        try:
            ld.Logger(Waits(), "r", log_dir=sys.argv[1])
        except KeyboardInterrupt:
            print([each.name for each in threading.enumerate()])
            with ld.Logger(Memory(), "r", log_dir=sys.argv[1]) as logger:
                print(logger.incarnation)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # The other one is the process's, for what its exit may wait for.
    assert done.stdout.splitlines() == ["['MainThread', 'lerax_dist-callbacks']", "2"]
    ends = [each for each in journal_records(tmp_path / "r") if each.kind == "close"]
    assert [end.body["state"] for end in ends] == ["failed", "finished"]


@pytest.mark.parametrize("starts", [False, True])
def test_ctrl_c_while_the_writer_starts_ends_the_run_as_failed(tmp_path, monkeypatch, starts):
    start = threading.Thread.start
    interrupts = ["lerax_dist-writer"]

    def interrupted(thread):
        if thread.name not in interrupts or starts:
            start(thread)
        if thread.name in interrupts:
            interrupts.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = run_threads()
    with pytest.raises(KeyboardInterrupt):
        ld.Logger(Memory(), "r", log_dir=tmp_path)
    for thread in run_threads() - before:
        thread.join(20.0)
        assert not thread.is_alive(), thread.name
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        assert logger.failures == ()
    ends = [each for each in journal_records(tmp_path / "r") if each.kind == "close"]
    assert [end.body["state"] for end in ends] == ["failed", "finished"]


def test_the_run_of_a_lost_logger_is_named_with_its_process_and_can_be_taken_up_again(tmp_path):
    def train(logged):
        logger = ld.Logger(Memory(), "r", log_dir=tmp_path)
        for step in logged:
            logger.log({"x": 1.0}, step)
        logger.flush()
        if len(logged) > 1:
            raise KeyError("as in a notebook cell: the logger is lost")
        return logger

    ld.close_runs()  # of tests before
    with pytest.raises(KeyError):
        train([0, 1])
    who = rf"process {os.getpid()} on {socket.gethostname()} since \d{{4}}-.* UTC, which is this"
    with pytest.raises(RuntimeError, match=rf"{who}.*`lerax_dist.close_runs\(\)`.*another `name`"):
        train([2])
    assert ld.close_runs() == ("r",)
    logger = train([2])
    assert (logger.name, logger.incarnation) == ("r", 2)
    # To another process it is one of another.
    program = "import sys, lerax_dist as ld; ld.Logger(ld.NoOpBackend(), 'r', log_dir=sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert f"process {os.getpid()} on" in done.stderr and "close_runs" not in done.stderr
    assert ld.close_runs() == ("r",) and ld.close_runs() == ()
    assert [i.state for i in ld.read_run(logger.run_dir).incarnations] == ["failed", "failed"]
    assert list(ld.read_run(logger.run_dir).steps) == [0, 1, 2]


def test_a_home_is_expanded_and_other_names_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for number, log_dir in enumerate(["~/a", Path("~/a"), "c:x", "a:b/c", "~nobody-here/x"]):
        logger = ld.Logger(ld.JSONLBackend(log_dir), f"r{number}")
        logger.close()
        expected = tmp_path / ("a" if number < 2 else log_dir)
        assert logger.run_dir == expected / f"r{number}"
        assert (logger.run_dir / "metrics.jsonl").exists()
    with ld.Logger(Memory(), "other", log_dir="~/b") as logger:
        assert logger.run_dir == tmp_path / "b" / "other"


@pytest.mark.parametrize("group", [None, ld.SoloGroup()])
def test_variables_of_an_unknown_launcher_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: ld.SoloGroup | None
):
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("NNODES", "2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ld.LoggingWarning)
        logger = ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path, group=group)
        logger.close()
    messages = [failure.message for failure in logger.failures]
    assert len(messages) == (group is None)
    if messages:
        assert messages[0].startswith("NNODES=2 NODE_RANK=1 looks like one of several processes")
        assert "`initialize(" in messages[0] and "`group=SoloGroup()`" in messages[0]
