"""A journal is read once, whatever becomes of it meanwhile."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lerax_dist.journal import (
    Damage,
    Event,
    JournalFormatError,
    JournalReader,
    Row,
    decode,
    encode,
    read_ends,
    read_run,
    take_identity,
)
from lerax_dist.journal._reader import read_backwards, read_last
from tests.journal.journals import closed, extend, lines, opened, resumed, row, write


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


def test_a_line_longer_than_a_batch_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lerax_dist.journal._reader._CHUNK_BYTES", 100)
    long = Event(1.0, "hparams", {"hparams": {"text": "x" * 10_000}})
    path = write(tmp_path, [opened(), long, row(1, a=1.0)])
    reader = JournalReader(path)
    found = []
    while not found or reader.behind:
        found += reader.read()
    assert len(found) == 3


@pytest.mark.parametrize("shorter", [True, False])
def test_a_journal_that_was_replaced_is_read_from_its_start(tmp_path, shorter):
    path = write(tmp_path, [opened("one"), *(row(step, a=1.0) for step in range(5))])
    reader = JournalReader(path)
    assert len(steps(reader.read())) == 5
    generation = reader.generation
    other = write(tmp_path / "new", [opened("two"), row(7, a=1.0), *[row(8, a=1.0)] * 9])
    if shorter:  # in place, as `cp` does
        path.write_bytes(lines([opened("two"), row(7, a=1.0)]))
    else:
        os.replace(other, path)
    assert steps(reader.read())[0] == 7
    assert reader.generation == generation + 1


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
    monkeypatch.setattr("lerax_dist.journal._reader._MAX_LINE_BYTES", 1 << 20)
    extend(path, b"\n" + lines([opened(), row(1, a=1.0)]))
    assert steps(reader.records()) == [1]


def test_a_journal_that_is_gone_leaves_nothing_to_wait_for(tmp_path, monkeypatch):
    monkeypatch.setattr("lerax_dist.journal._reader._CHUNK_BYTES", 500)
    path = write(tmp_path, [opened(), *(row(step, a=1.0) for step in range(100))])
    reader = JournalReader(path)
    reader.read()
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


def test_rows_of_programs_that_log_in_turns_keep_their_order(tmp_path):
    rows = [row(step, **{f"m{step % 3}": step}) for step in range(100)]
    rows.insert(50, Row.of(1.0, 50, None, {"m0": np.nan}, {"v": np.array([1.0, np.inf])}))
    path = write(tmp_path, [opened(), *rows, closed()])
    found = [record for _, record in JournalReader(path).records()]
    assert isinstance(found[0], Event) and isinstance(found[-1], Event)
    for one, expected in zip(found[1:-1], rows, strict=True):
        assert isinstance(one, Row) and one.step == expected.step
        np.testing.assert_equal(one.metrics, expected.metrics)
        np.testing.assert_equal(dict(one.vectors), dict(expected.vectors))


def sealed(body: bytes) -> bytes:
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def test_a_row_whose_value_is_no_number_costs_no_neighbor(tmp_path):
    data = lines([row(step, a=step) for step in range(4)]).splitlines(keepends=True)
    data[2] = sealed(b'{"n":2,"time":0.0,"kind":"row","step":2,"metrics":{"a":"text"}}')
    vectors = [Row.of(1.0, 5, None, {}, {"v": np.ones(size)}) for size in (2, 3)]
    path = write(tmp_path, [])
    path.write_bytes(b"".join(data) + lines([*vectors], first=4))
    reader = JournalReader(path)
    found = [record for _, record in reader.records() if isinstance(record, Row)]
    assert [one.step for one in found] == [0, 1, 3, 5, 5]
    assert [one.vectors["v"].shape for one in found[3:]] == [(2,), (3,)]
    assert reader.damage == Damage(lines=1)


def test_a_newer_format_is_named_by_every_way_to_read(tmp_path):
    first = lines([opened()]).replace(b'"format":2', b'"format":7')
    path = write(tmp_path, [])
    path.write_bytes(sealed(first[: first.rindex(b',"crc"')] + b"}") + lines([row(1, a=1.0)], 1))
    reader = JournalReader(path)
    with path.open("rb") as file:
        ways = [
            reader.read,
            reader.read,  # what follows the record would be a guess
            lambda: read_ends(path),
            lambda: read_run(path),
            lambda: take_identity(tmp_path, continues=True),
            lambda: read_last(file.fileno(), path.stat().st_size),
        ]
        for way in ways:
            with pytest.raises(JournalFormatError, match="format 7.*up to 2"):
                way()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 90).map(lambda size: b"x" * size + b"\n"), max_size=40),
    st.binary(max_size=50),
    st.integers(1, 64),
)
def test_lines_backwards_are_the_lines(tmp_path, monkeypatch, whole, rest, span):
    monkeypatch.setattr("lerax_dist.journal._reader._END_BYTES", span)
    data = b"".join(whole) + rest.replace(b"\n", b"")
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        for stop in {0, sum(map(len, whole[: len(whole) // 2]))}:
            found = list(read_backwards(file.fileno(), len(data), stop))[::-1]
            assert b"".join(line for _, line in found) == data[stop:]
            assert [line for _, line in found] == io.BytesIO(data[stop:]).readlines()
            offset = stop
            for start, line in found:
                assert start == offset
                offset += len(line)


def journal_bytes() -> bytes:
    """Two incarnations of a run with rows of several kinds and a clip."""
    clip = {"tag": "v", "step": 3, "iteration": 1, "fps": 1.0, "shape": [1], "file": "v.png"}
    first = [
        *(opened(), Event(1.0, "hparams", {"hparams": {"lr": 0.1}})),
        *(row(step, a=step, **({"b": np.nan} if step % 2 else {})) for step in range(6)),
        *(Event(1.0, "video", clip), Row.of(1.0, 6, 2, {}, {"v": np.array([1.0, np.nan])})),
    ]
    second = [opened(incarnation=2), resumed(4), *(row(step, a=-step) for step in range(4, 8))]
    return lines([*first, *second, closed()])


DATA = journal_bytes()
WHOLE = {line: decode(line) for line in DATA.splitlines(keepends=True)}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A journal of which pieces are cut out, changed, repeated and put together anew."""
    data = DATA
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "flip", "splice", "insert", "drop"])):
            case "cut":
                data = data[:at]
            case "flip" if at < len(data):
                bit = 1 << draw(st.integers(0, 7))
                data = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            case "splice":
                data = data[:at] + data[draw(st.integers(0, len(data))) :]
            case "insert":
                data = data[:at] + draw(st.binary(max_size=30)) + data[at:]
            case "drop":
                whole = data.splitlines(keepends=True)
                data = b"".join(whole[::-1] if at % 2 else whole[at % 7 :] + whole[: at % 5])
    return data


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged(), st.integers(1, 700))
def test_whatever_happens_to_a_file_its_intact_records_come_and_nothing_else(
    tmp_path, monkeypatch, data, chunk_bytes
):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(data)
    intact = {
        pair[0]: pair[1]
        for line in data.split(b"\n")[:-1]
        if (pair := WHOLE.get(line + b"\n")) is not None
    }
    resumes = [n for n, one in intact.items() if isinstance(one, Event) and one.kind == "resume"]
    expected = {
        number
        for number, one in intact.items()
        if not (
            any(number < resume for resume in resumes)
            and (one.step if isinstance(one, Row) else one.body.get("step", -1)) >= 4
        )
    }
    at_once = list(JournalReader(path).records())
    with monkeypatch.context() as patch:
        patch.setattr("lerax_dist.journal._reader._CHUNK_BYTES", chunk_bytes)
        in_pieces = [list(JournalReader(path).records()), read_all(path)]
    for found in (at_once, *in_pieces):
        assert sorted(number for number, _ in found) == sorted(expected)
        for number, record in found:
            assert encode(record, number) == encode(intact[number], number)
    run = read_run(path)
    kept = [intact[number] for number in sorted(expected)]
    assert run.steps.tolist() == [one.step for one in kept if isinstance(one, Row)]
    ends = read_ends(path)
    assert {number for number, _ in [*ends.head, *ends.tail]} == expected
    with path.open("rb") as file:
        following, torn, last = read_last(file.fileno(), len(data))
    assert torn == (not data.endswith(b"\n") and data != b"")
    assert (last is None) == (not intact)
    assert following == 0 if last is None else following - 1 in intact


def read_all(path: Path) -> list[tuple[int, Row | Event]]:
    reader = JournalReader(path)
    found = reader.read()
    while reader.behind:
        found += reader.read()
    return found
