"""A journal is read once, whatever becomes of it meanwhile."""

import fcntl
import os

import pytest

from lerax_dist.cli._locks import is_local, is_locked, lists_lock
from lerax_dist.cli._reader import Damage, JournalReader
from lerax_dist.journal._record import Event, Row
from tests.cli.journals import closed, extend, lines, opened, resumed, row, write


def steps(records) -> list[int]:
    return [record.step for _, record in records if isinstance(record, Row)]


def test_what_was_read_is_not_read_again(tmp_path, monkeypatch):
    path = write(tmp_path, [opened(), *(row(step, loss=1.0) for step in range(20_000))])
    reader = JournalReader(path)
    assert steps(reader.records()) == list(range(20_000))
    assert reader.offset == path.stat().st_size
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: read.append(n) or pread(fd, n, at))
    assert reader.read() == []
    extend(path, lines([row(20_000, loss=1.0)], first=20_001))
    assert steps(reader.read()) == [20_000]
    assert sum(read) < 2000


def test_a_journal_that_comes_later(tmp_path):
    reader = JournalReader(tmp_path / "none" / "journal.jsonl")
    assert reader.read() == []
    write(tmp_path / "none", [opened(), row(1, a=1.0)])
    assert steps(reader.read()) == [1]


def test_a_line_that_is_being_written_waits_for_its_end(tmp_path):
    path = write(tmp_path, [opened()])
    line = lines([row(1, a=1.0)], first=1)
    extend(path, line[:20])
    reader = JournalReader(path)
    assert steps(reader.read()) == []
    assert reader.damage == Damage(torn=True)
    assert not reader.behind
    extend(path, line[20:])
    assert steps(reader.read()) == [1]
    assert reader.damage == Damage()


def test_a_line_longer_than_a_batch_is_read(tmp_path):
    long = Event(1.0, "hparams", {"hparams": {"text": "x" * 10_000}})
    path = write(tmp_path, [opened(), long, row(1, a=1.0)])
    reader = JournalReader(path)
    found = []
    while not found or reader.behind:
        found += reader.read(most_bytes=100)
    assert len(found) == 3


@pytest.mark.parametrize("shorter", [True, False])
def test_a_journal_that_was_replaced_is_read_from_its_start(tmp_path, shorter):
    path = write(tmp_path, [opened("one"), *(row(step, a=1.0) for step in range(5))])
    reader = JournalReader(path)
    assert len(steps(reader.read())) == 5
    age = reader.age
    other = write(tmp_path / "new", [opened("two"), row(7, a=1.0), *[row(8, a=1.0)] * 9])
    if shorter:  # in place, as `cp` does
        path.write_bytes(lines([opened("two"), row(7, a=1.0)]))
    else:
        os.replace(other, path)
    assert steps(reader.read())[0] == 7
    assert reader.age == age + 1


def test_damaged_lines_are_counted_and_others_read(tmp_path):
    data = lines([opened(), *(row(step, a=1.0) for step in range(10))]).splitlines(keepends=True)
    data[3] = data[3].replace(b"row", b"r\rw")
    data.insert(6, b'{"n": 5, "ti\n')
    (tmp_path / "journal.jsonl").write_bytes(b"".join(data)[:-5])
    reader = JournalReader(tmp_path / "journal.jsonl")
    assert steps(reader.records()) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert reader.damage == Damage(lines=2, missing=1, torn=True)


def test_a_file_without_lines_is_read_once_and_left_behind(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\x00" * 5_000_000)
    reader = JournalReader(path)
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: read.append(n) or pread(fd, n, at))
    for _ in range(5):
        assert reader.read() == []
        assert not reader.behind
    assert sum(read) < 25_000_000
    monkeypatch.setattr("lerax_dist.cli._reader._LONGEST_BYTES", 1 << 20)
    extend(path, b"\n" + lines([opened(), row(1, a=1.0)]))
    assert steps(reader.records()) == [1]


def test_a_journal_that_is_gone_leaves_nothing_to_wait_for(tmp_path):
    path = write(tmp_path, [opened(), *(row(step, a=1.0) for step in range(100))])
    reader = JournalReader(path)
    reader.read(most_bytes=500)
    assert reader.behind
    path.unlink()
    assert reader.read() == []
    assert not reader.behind


def test_rows_that_came_again_are_hidden_also_across_two_resumes(tmp_path):
    records = [
        *(opened(), row(0, a=0.0), row(10, a=0.0), row(20, a=0.0), row(30, a=0.0)),
        *(opened(), resumed(20), row(20, a=1.0), row(30, a=1.0)),
        *(opened(), resumed(10), row(10, a=2.0), closed()),
    ]
    reader = JournalReader(write(tmp_path, records))
    found = [record for _, record in reader.records() if isinstance(record, Row)]
    assert [(one.step, float(one.metrics["a"])) for one in found] == [(0, 0.0), (10, 2.0)]
    assert reader.superseded == 5


def test_records_that_come_while_all_are_read_are_left_for_later(tmp_path):
    path = write(tmp_path, [opened(), row(1, a=1.0)])
    reader = JournalReader(path)
    found = reader.records()
    first = next(found)
    extend(path, lines([row(2, a=1.0)], first=2))
    assert steps([first, *found]) == [1]
    assert steps(reader.read()) == [2]


def test_a_lock_is_seen_and_never_taken(tmp_path):
    path = write(tmp_path, [opened()])
    with path.open("rb") as reader, path.open("rb+") as writer:
        assert is_locked(reader) is False
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert is_locked(reader) is True
        fcntl.flock(writer, fcntl.LOCK_UN)
        assert is_locked(reader) is False
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCKS = """\
1: FLOCK  ADVISORY  WRITE 29484 fe:00:131 0 EOF
2: POSIX  ADVISORY  READ 18133 fe:00:132 0 EOF
2: -> FLOCK  ADVISORY  WRITE 18133 fe:00:133 0 EOF
"""
MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 27 0:45 / /home rw,relatime shared:1 - nfs4 server:/home rw
"""


def test_the_list_of_locks():
    found = [lists_lock(LOCKS, "fe:00", inode) for inode in (131, 132, 133, 13)]
    assert found == [True, False, False, False]


def test_only_on_a_file_system_of_this_host_no_lock_means_that_there_is_none():
    found = [is_local(MOUNTS, *place) for place in ((254, 0), (0, 45), (9, 9))]
    assert found == [True, False, False]
