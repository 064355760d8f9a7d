"""Work on devices: its results, its errors, and a timeout."""

import threading
from collections.abc import Iterator

import pytest

from lerax_dist.cli.doctor._check import Context
from lerax_dist.cluster import SoloGroup, detect


def context(timeout: float) -> Context:
    return Context(detect({}), SoloGroup(), "logs", timeout)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_one_other_thread_does_the_work_and_its_result_or_error_comes_back():
    tested = context(30.0)
    thread = tested.on_devices(threading.current_thread)
    assert thread is not threading.current_thread()
    assert tested.on_devices(threading.current_thread) is thread
    assert (tested.devices_failed, tested.devices_hang) == (False, False)
    with pytest.raises(ZeroDivisionError):
        tested.on_devices(lambda: 1 // 0)

    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        tested.on_devices(late)
    assert (tested.devices_failed, tested.devices_hang) == (True, False)


def test_work_that_hangs_times_out_and_no_more_is_started(gate: threading.Event):
    tested = context(0.1)
    with pytest.raises(TimeoutError, match=r"timed out after 0\.1 s"):
        tested.on_devices(gate.wait)
    assert (tested.devices_failed, tested.devices_hang) == (True, True)
    with pytest.raises(TimeoutError, match="still running"):
        tested.on_devices(lambda: pytest.fail("it was started"))
