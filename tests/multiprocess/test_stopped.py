"""Process 0 stands still, as one that swaps or is debugged does: all operations time out."""

import socket
from pathlib import Path

import pytest

from tests.multiprocess.launch import launch

WORKER = Path(__file__).parent / "workers" / "stopped.py"


@pytest.fixture(scope="module")
def reports() -> list[dict]:
    return [result.report for result in launch(WORKER, processes=2, launcher="explicit")]


@pytest.mark.parametrize("name", ["broadcast", "gather", "barrier"])
def test_an_operation_times_out(reports: list[dict], name: str):
    error = reports[1]["errors"][name]
    assert error.startswith(f"The {name} of ")
    assert (
        f"timed out after `timeout` = 1 s: process 0 (host {socket.gethostname()}) did not" in error
    )


def test_one_thread_at_most_is_left_to_wait(reports: list[dict]):
    # That of the heartbeats is in a store of its own.
    assert reports[1]["hanging"] <= 2


def test_all_goes_on_once_process_0_does(reports: list[dict]):
    assert reports[0]["again"] == [0, 1]
