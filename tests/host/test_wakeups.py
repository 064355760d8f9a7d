"""How often the threads of a logger wake: by the clock, not by the row."""

import time

import lerax_dist as ld
from lerax_dist.host._queue import PAUSE, RowQueue
from lerax_dist.journal._journal import Journal
from tests.memory import Memory


def test_threads_wake_by_the_clock_and_not_by_the_row(tmp_path, monkeypatch):
    wakes = {"writer": 0, "pump": 0}

    def counted(who, method):
        def call(*args, **kwargs):
            result = method(*args, **kwargs)
            wakes[who] += 1
            return result

        return call

    monkeypatch.setattr(RowQueue, "take", counted("writer", RowQueue.take))
    monkeypatch.setattr(Journal, "wait", counted("pump", Journal.wait))
    memory = Memory()
    with ld.Logger(memory, "r", log_dir=tmp_path) as logger:
        logger.flush()
        wakes.update(writer=0, pump=0)
        begin, rows = time.monotonic(), 0
        # As many rows as the writer keeps up with, so that it is never behind.
        while time.monotonic() - begin < 0.5:
            logger.log({"a": 1.0}, rows)
            rows += 1
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                pass
        logger.flush()
        # The first row, the flush, and one more for what had begun.
        most = (time.monotonic() - begin) / PAUSE + 3
        woken = dict(wakes)
    assert len(memory.rows) == rows > 5 * most
    assert woken["writer"] <= most
    assert woken["pump"] <= most


def test_a_row_is_on_its_way_without_a_flush(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        journal = tmp_path / "r" / "journal.jsonl"
        deadline = time.monotonic() + 30
        for step in range(3):
            # The second and the third come while the writer gathers.
            logger.log({"a": 1.0}, step)
        while journal.read_bytes().count(b'"kind":"row"') < 3:
            assert time.monotonic() < deadline, journal.read_text()
