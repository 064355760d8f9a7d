import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.journal import (
    Event,
    Journal,
    JournalFormatError,
    JournalInUse,
    Row,
    _journal,
    decode,
    encode,
)
from tests.readers import decoded


def row(step):
    return Row.of(0.0, step, None, {"x": np.float64(step)})


def steps_of(path):
    """Steps of the lines that are whole."""
    both: list[Any] = [decode(line) for line in path.read_bytes().splitlines(keepends=True)]
    return [entry[1].step for entry in both if entry is not None]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def read_all(journal, cursor):
    out = []
    while records := journal.read(cursor, 7):
        out += steps(records)
    return out


def steps(records: list[Any]):
    return [record.step for record in records]


def test_what_is_appended_is_in_the_file_at_once(path):
    journal = Journal(path, Failures())
    journal.append([row(0), row(1)])
    assert steps_of(path) == [0, 1]
    journal.close()


def test_readers_have_a_pace_of_their_own(path):
    journal = Journal(path, Failures())
    slow, fast = journal.cursor(), journal.cursor()
    journal.append([row(step) for step in range(10)])
    assert read_all(journal, fast) == list(range(10))
    journal.append([row(step) for step in range(10, 20)])
    assert read_all(journal, fast) == list(range(10, 20))
    assert read_all(journal, slow) == list(range(20))
    journal.close()


def test_a_reader_far_behind_catches_up_from_the_file(path, monkeypatch):
    monkeypatch.setattr(_journal, "_RECENT_BYTES", 500)
    journal = Journal(path, Failures())
    cursor = journal.cursor()
    seen = []
    for step in range(200):
        journal.append([row(step)])
        if step % 31 == 0:
            seen += steps(journal.read(cursor, 3))
    assert len(journal._recent) < 10
    assert cursor.number < journal._recent[0].number
    assert seen + read_all(journal, cursor) == list(range(200))
    journal.close()


def test_an_older_journal_is_continued_and_nothing_of_it_is_changed(path):
    first = Journal(path, Failures())
    first.append([row(0), row(1)])
    first.close()
    before = path.read_bytes()
    second = Journal(path, Failures())
    cursor = second.cursor()
    second.append([row(2)])
    assert path.read_bytes().startswith(before)
    assert read_all(second, cursor) == [2]
    second.close()
    numbers = [decoded(line)[0] for line in path.read_bytes().splitlines(keepends=True)]
    assert numbers == [0, 1, 2]


def test_a_torn_last_line_does_not_swallow_the_next(path):
    first = Journal(path, Failures())
    first.append([row(0), row(1)])
    first.close()
    torn = path.read_bytes()[:-10]
    path.write_bytes(torn)
    second = Journal(path, Failures())
    cursor = second.cursor()
    second.append([row(2), row(3)])
    assert path.read_bytes().startswith(torn)
    assert steps_of(path) == [0, 2, 3]
    assert read_all(second, cursor) == [2, 3]
    second.close()


def test_one_run_has_one_writer(path):
    journal = Journal(path, Failures())
    with pytest.raises(JournalInUse, match="another logger.*pass another `name`"):
        Journal(path, Failures())
    journal.close()
    Journal(path, Failures()).close()


def test_a_journal_of_a_newer_format_is_not_continued(path):
    line = encode(Event(0.0, "open", {"name": "r"}), 0).replace(b'"format":2', b'"format":3')
    body = line[: line.rindex(b',"crc"')] + b"}"
    newer = b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))
    path.write_bytes(newer)
    for _ in range(2):  # also the second time: the lock is not kept
        with pytest.raises(JournalFormatError, match="journal.jsonl: .*format 3.*up to 2"):
            Journal(path, Failures())
    assert path.read_bytes() == newer


def test_a_full_disk_costs_no_row_and_blocks_no_reader(path):
    """The file size limit of the process replaces the disk: writes end within a line."""
    journal = Journal(path, Failures())
    cursor = journal.cursor()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
        with pytest.warns(LoggingWarning, match="failed to write.*Rows are buffered in memory"):
            for step in range(50):
                journal.append([row(step)])
        assert path.stat().st_size == 1000
        assert read_all(journal, cursor) == list(range(50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    journal.append([row(50)])
    assert steps_of(path) == list(range(51))
    journal.close()


def test_a_disk_that_stays_full_bounds_the_memory_and_says_what_is_missing(path, monkeypatch):
    monkeypatch.setattr(_journal, "_UNWRITTEN_BYTES", 2000)
    monkeypatch.setattr(_journal, "_RECENT_BYTES", 2000)
    failures = Failures()
    journal = Journal(path, failures)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoggingWarning)
        os.close(journal._fd)
        journal._fd = os.open("/dev/full", os.O_WRONLY)
        for step in range(500):
            journal.append([row(step)])
        assert len(journal._recent) < 50
        assert len(journal._unwritten) < 50
        journal.close()
    assert any("500 rows are missing from" in failure.message for failure in failures.all())


def test_a_reader_that_waits_is_woken_by_an_append(path):
    journal = Journal(path, Failures())
    cursor = journal.cursor()
    got = []

    def read():
        journal.wait(cursor, unless=threading.Event())
        got.extend(steps(journal.read(cursor, 10)))

    thread = threading.Thread(target=read)
    thread.start()
    journal.append([row(4)])
    thread.join(10)
    assert got == [4]
    journal.close()


def test_rows_survive_that_the_process_is_killed(path):
    program = textwrap.dedent(
        """
        import os, signal, sys
        import numpy as np
        from pathlib import Path
        from lerax_dist._failures import Failures
        from lerax_dist.journal._journal import Journal
        from lerax_dist.journal._record import Row
        journal = Journal(Path(sys.argv[1]), Failures())
        for step in range(100):
            journal.append([Row.of(0.0, step, None, {"x": np.float64(step)})])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert steps_of(path) == list(range(100))
