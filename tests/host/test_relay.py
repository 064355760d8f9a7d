"""A process with a share in a run sends its rows, and its end, whatever happens."""

import threading
import time

import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.host import _relay
from lerax_dist.host._parcel import Unpacker
from lerax_dist.host._relay import RelayRun
from lerax_dist.host._sink import HostRow

LIMIT = 20.0


class Box:
    """A mailbox in memory. The first messages fail, and there is room once it is said."""

    def __init__(self, failures=0, room=True):
        self.sent = []
        self.failures = failures
        self.room = threading.Event()
        self.asked = threading.Event()
        if room:
            self.room.set()

    def has_room(self, *, timeout):
        self.asked.set()
        return self.room.wait(min(timeout, 0.01))

    def send(self, value):
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no network")
        self.sent.append(value)

    def finish(self, *, timeout):
        return True

    def read(self):
        """Number and names of every row, and the end."""
        unpacker, found = Unpacker(), []
        for message in self.sent:
            if "end" in message:
                found.append(message["end"])
            else:
                found += [(share.number, share.names) for share in unpacker.unpack(message)]
        return found


def relay(tmp_path, box, settle=lambda timeout: None):
    return RelayRun("r", tmp_path, box, Failures(), settle)


def log(run, step, *names):
    metrics = (names, {name: 1.0 for name in names}, [])
    run.log(HostRow(step, metrics, 0.0), 8, time.perf_counter())


def test_rows_wait_for_process_0_and_then_come_in_order(tmp_path):
    box = Box(room=False)
    run = relay(tmp_path, box)
    for step in range(5):
        log(run, step, "x")
    assert box.asked.wait(LIMIT)
    assert box.sent == []
    box.room.set()
    run.close("finished", LIMIT)
    assert box.read() == [*((step, ("x",)) for step in range(5)), "finished"]
    assert run.failures.all() == ()


def test_what_process_0_does_not_take_in_time_is_sent_in_a_hurry(tmp_path, monkeypatch):
    monkeypatch.setattr(_relay, "_HURRY", LIMIT)
    box = Box(room=False)
    run = relay(tmp_path, box)
    log(run, 0, "x")
    with pytest.warns(LoggingWarning, match="did not take all rows of this process in time"):
        run.close("failed", 0.1)
    assert box.read() == [(0, ("x",)), "failed"]


def test_an_interrupted_close_goes_on(tmp_path):
    interrupts = [KeyboardInterrupt()]

    def settle(timeout):
        if interrupts:
            raise interrupts.pop()

    box = Box()
    run = relay(tmp_path, box, settle)
    log(run, 0, "x")
    with pytest.raises(KeyboardInterrupt):
        run.close("failed", LIMIT)
    assert not run.closed
    run.close("failed", LIMIT)
    run.close("failed", LIMIT)
    assert box.read() == [(0, ("x",)), "failed"]


def test_rows_that_could_not_be_sent_cost_none_that_come_later(tmp_path):
    box = Box(failures=1)
    run = relay(tmp_path, box)
    with pytest.warns(LoggingWarning, match="rows could not be sent"):
        log(run, 0, "a")
        run.flush(LIMIT)
    for step, name in ((1, "b"), (2, "a"), (3, "b")):
        log(run, step, name)
        run.flush(LIMIT)
    run.close("finished", LIMIT)
    assert box.read() == [(1, ("b",)), (2, ("a",)), (3, ("b",)), "finished"]
