"""Work for the main thread: its results, its errors, and an end to waiting for it."""

import threading

import pytest

from lerax_dist.cli._main_thread import MainThread


@pytest.fixture
def served():
    worker = MainThread()
    thread = threading.Thread(target=worker.serve)
    thread.start()
    yield worker, thread
    worker.end()
    thread.join(30)
    assert not thread.is_alive()


def test_work_is_done_there_and_its_result_or_error_comes_back(served):
    worker, thread = served
    assert worker.ask(threading.current_thread, 30) is thread
    with pytest.raises(ZeroDivisionError):
        worker.ask(lambda: 1 // 0, 30)

    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        worker.ask(late, 30)
    assert not worker.stuck


def test_what_hangs_is_not_waited_for_and_nothing_is_asked_after_it(served):
    worker, _ = served
    gate = threading.Event()
    with pytest.raises(TimeoutError):
        worker.ask(lambda: gate.wait(30), 0.1)
    assert worker.stuck
    with pytest.raises(TimeoutError, match="still at what"):
        worker.ask(lambda: None, 30)
    gate.set()
