"""The queue is bounded in bytes and loses nothing.

A pure test of what the package keeps to itself: at the door it takes 64 MiB of rows to see it.
"""

import threading
import time
import warnings
from queue import SimpleQueue

import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.host import _queue
from lerax_dist.host._queue import RowQueue


def test_what_is_put_is_taken_in_order_with_its_size():
    queue = RowQueue(Failures())
    for number in range(5):
        queue.put_row(number, number, 0.0)
    assert queue.take(None) == [(number, number) for number in range(5)]
    assert queue.take(0.01) == []


def test_a_row_waits_for_room_and_nothing_is_lost():
    queue = RowQueue(Failures(), bound=100)
    added: list[int] = []
    full = threading.Event()

    def produce():
        for number in range(50):
            if number == 10:
                full.set()
            queue.put_row(number, 10, 0.0)
            added.append(number)

    with pytest.warns(LoggingWarning, match="the training now waits for the writer") as warned:
        producer = threading.Thread(target=produce)
        producer.start()
        assert full.wait(10.0)
        taken: list[int] = []
        while len(taken) < 50:
            # Never more than the bound at once, whatever the producer's pace.
            items = queue.take(10.0)
            assert 10 * len(items) <= 100
            taken += [item for item, _ in items]
            for _, size in items:
                queue.done(size)
        producer.join(10.0)
    assert taken == list(range(50))
    assert len(warned) == 1


def test_a_writer_that_does_not_move_stops_no_training(monkeypatch):
    monkeypatch.setattr(_queue, "_ROOM_TIMEOUT", 0.2)
    failures = Failures()
    queue = RowQueue(failures, bound=100)
    begin = time.monotonic()
    with pytest.warns(LoggingWarning) as warned:
        for number in range(100):
            queue.put_row(number, 60, 0.0)
    assert "beyond the memory limit" in str(warned[-1].message)
    # One wait, not ninety-nine.
    assert time.monotonic() - begin < 10.0
    assert [item for item, _ in queue.take(None)] == list(range(100))
    assert len(failures.all()) == 2


def test_a_row_larger_than_the_bound_comes_in_when_nothing_waits():
    failures = Failures()
    queue = RowQueue(failures, bound=100)
    queue.put_row("large", 1000, 0.0)
    assert queue.take(None) == [("large", 1000)]
    assert failures.all() == ()


def test_what_has_no_size_waits_for_no_room():
    queue = RowQueue(Failures(), bound=10)
    queue.put_row("row", 10, 0.0)
    queue.put("token")
    assert [item for item, _ in queue.take(None)] == ["row", "token"]


def test_rows_that_follow_each_other_are_taken_together_and_the_first_at_once():
    queue = RowQueue(Failures(), pause=30.0)
    queue.put_row("first", 1, 0.0)
    assert queue.take(None) == [("first", 1)]
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.extend(queue.take(None)), daemon=True)
    taker.start()
    for number in range(5):
        queue.put_row(number, 1, 0.0)
    queue.put("now")
    taker.join(10)
    assert taken == [*((number, 1) for number in range(5)), ("now", 0)]


def test_a_queue_that_is_behind_or_full_does_not_pause():
    queue = RowQueue(Failures(), pause=30.0)
    for number in range(3000):
        queue.put_row(number, 1, 0.0)
    assert sum(len(queue.take(None)) for _ in range(3)) == 3000
    tight = RowQueue(Failures(), bound=10, pause=30.0)
    tight.put_row("first", 10, 0.0)
    assert tight.take(None) == [("first", 10)]

    def write():
        for _, size in tight.take(None):
            tight.done(size)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    tight.done(10)
    tight.put_row("second", 10, 0.0)
    with pytest.warns(LoggingWarning, match="are queued"):
        tight.put_row("third", 10, 0.0)
    writer.join(10)
    assert not writer.is_alive()


def test_what_shows_a_warning_may_log_as_well(monkeypatch):
    queue = RowQueue(Failures(), bound=10)

    def log():
        for number in range(3):
            queue.put_row(number, 8, 0.0)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda *args: queue.put_row("warned", 1, 0.0))
        training = threading.Thread(target=log, daemon=True)
        training.start()
        found = []
        while len(found) < 4:
            taken = queue.take(10.0)
            assert taken
            queue.done(sum(size for _, size in taken))
            found += [item for item, _ in taken]
        training.join(10.0)
    assert sorted(map(str, found)) == ["0", "1", "2", "warned"]


def test_a_signal_that_logs_finds_the_queue_open_whatever_it_interrupts():
    queue = RowQueue(Failures())
    with queue._lock:  # where the handler may have come in, in the same thread
        queue.put_row("signal", 8, 0.0)
    assert queue.take(1.0) == [("signal", 8)]


def test_the_time_to_gather_rows_is_part_of_how_long_is_waited():
    class Spy(SimpleQueue):
        timeout = 0.0

        def get(self, block=True, timeout=None):
            self.timeout = timeout or 0.0
            return super().get(block, timeout)

    queue = RowQueue(Failures(), pause=0.3)
    queue._items = items = Spy()
    queue.put(0)
    assert queue.take(None) == [(0, 0)]
    assert queue.take(0.5) == []
    assert 0.0 < items.timeout <= 0.5 - 0.25
