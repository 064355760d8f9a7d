"""How often the threads of a logger wake: by the clock, not by the row."""

import os
import time

import lerax_dist as ld
from tests.memory import Batches, Memory

# How long rows are gathered, in seconds.
PAUSE = 0.2


def test_threads_wake_by_the_clock_and_not_by_the_row(tmp_path, monkeypatch):
    writes = []

    def write(descriptor, data, real=os.write):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal.jsonl"):
            writes.append(len(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    backend = Batches()
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        logger.flush()
        writes.clear()
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
        counts = len(writes), len(backend.batches)
    assert len(backend.rows) == rows > 5 * most
    assert max(counts) <= most


def test_a_row_is_on_its_way_without_a_flush(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        journal = tmp_path / "r" / "journal.jsonl"
        deadline = time.monotonic() + 30
        for step in range(3):
            # The second and the third come while the writer gathers.
            logger.log({"a": 1.0}, step)
        while journal.read_bytes().count(b'"kind":"row"') < 3:
            assert time.monotonic() < deadline, journal.read_text()
