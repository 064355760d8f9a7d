import itertools
import socket
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter

from lerax_dist.backends._tensorboard_events import EventFile, RowEvents, as_records, find_bands

# Bytes of a record before its message and after it.
HEAD, TAIL = 12, 4


def message(tags, values, step, now):
    summary = Summary(
        value=[Summary.Value(tag=t, simple_value=v) for t, v in zip(tags, values, strict=True)]
    )
    return Event(wall_time=now, step=step, summary=summary)


def tensorboardx_record(data, path):
    writer = RecordWriter(str(path))
    writer.write(data)
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("step", [0, 1, 127, 128, 2**31, 2**63 - 1])
def test_a_record_is_to_the_byte_what_protobuf_and_tensorboardx_make(tmp_path, step):
    tags = ("train/loss", "ä", "x" * 200, *(f"m{i}" for i in range(40)))
    rows = RowEvents(tags)
    for round_ in range(3):
        values = np.random.default_rng(round_).normal(size=len(tags)) * 10.0**round_
        written = rows.records(values[None], [step], [1.5e9 + round_])
        expected = message(tags, values, step, 1.5e9 + round_).SerializeToString()
        assert written[HEAD:-TAIL] == expected
        assert written == tensorboardx_record(expected, tmp_path / str(round_))


def test_a_row_is_these_bytes():
    record = RowEvents(("train/loss", "a")).records(np.array([[0.5, -1.0]]), [300], [1.5e9])
    assert record.hex() == (
        "2b00000000000000861bc34b"  # length and its checksum
        "09000000c00b5ad641"  # wall_time
        "10ac02"  # step
        "2a1d0a110a0a747261696e2f6c6f7373150000003f0a080a016115000080bf"  # summary
        "016dde69"  # checksum
    )


def test_records_of_many_rows_are_those_of_each():
    values = np.random.default_rng(0).normal(size=(7, 3))
    steps, times = [0, 1, 127, 128, 129, 2**40, 3], [1.5e9 + number for number in range(7)]
    rows = RowEvents(("a", "b", "c"))
    alone = [rows.records(values[i : i + 1], [steps[i]], [times[i]]) for i in range(7)]
    assert rows.records(values, steps, times) == b"".join(alone)
    assert len(set(alone)) == 7


def test_values_may_lie_column_by_column():
    # As they do in what `DataFrame.to_numpy` returns.
    values = np.arange(6.0).reshape(3, 2)
    rows, rest = RowEvents(("a", "b")), ([0, 1, 2], [0.0, 1.0, 2.0])
    assert rows.records(np.asfortranarray(values), *rest) == rows.records(values, *rest)


def test_values_beyond_float32_are_infinite():
    values = np.array([[1e300, -1e300, 1e-300]])
    record = RowEvents(("a", "b", "c")).records(values, [1], [0.0])
    (a, b, c) = Event.FromString(record[HEAD:-TAIL]).summary.value
    assert (a.simple_value, b.simple_value, c.simple_value) == (np.inf, -np.inf, 0.0)


def test_a_step_below_zero_comes_back():
    record = RowEvents(("a",)).records(np.zeros((1, 1)), [-1], [0.0])
    assert Event.FromString(record[HEAD:-TAIL]).step == -1


def test_a_step_of_more_than_64_bits_is_an_error():
    with pytest.raises(ValueError, match="9223372036854775808"):
        RowEvents(("a",)).records(np.zeros((1, 1)), [2**63], [0.0])


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000])
def test_any_message_is_the_record_that_tensorboardx_makes(tmp_path, size):
    event = message(["x" * size], [1.0], 1, 2.0)
    expected = tensorboardx_record(event.SerializeToString(), tmp_path / "record")
    assert as_records([event, event]) == expected * 2


@pytest.mark.parametrize(
    ("tags", "bands"),
    [
        ([], []),
        (["a", "a_min"], []),
        (["a_min", "a_max"], []),
        (["a_max", "a", "a_min"], [("a", "a_min", "a_max")]),
        (
            ["a", "a/member_min", "a/member_max", "b/member_min", "b/member_max"],
            [("a", "a/member_min", "a/member_max")],
        ),
    ],
)
def test_a_band_needs_all_three(tags, bands):
    assert find_bands(tags) == bands


def test_a_file_sorts_after_those_there_and_writes_to_none_of_them(tmp_path, monkeypatch):
    """Hosts whose clocks differ, and names that would be the same but for the order."""
    names = "lerax_dist.backends._tensorboard_events._FILE_NUMBERS"
    monkeypatch.setattr(names, itertools.repeat(7))
    # As other writers name theirs, from another host.
    (tmp_path / "events.out.tfevents.1790000000.zebra.1.0").touch()
    (tmp_path / "events.out.tfevents.0000000000.hparams").touch()
    order = sorted(path.name for path in tmp_path.iterdir())
    for clock, host in ((1780000000.5, "n9"), (1790009999.5, "n1"), (3.0, "n0"), (3.0, "n0")):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        EventFile(tmp_path).close()
        assert {path: path.read_bytes() for path in before} == before
        (new,) = set(tmp_path.iterdir()) - set(before)
        order.append(new.name)
    assert order == sorted(order) and len(order) == 6
