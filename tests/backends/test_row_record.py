import crc32c as native
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter

from lerax_dist.backends._crc32c import PatchedChecksum, crc32c
from lerax_dist.backends._row_record import HEAD, TAIL, RowRecord, encode_step


def protobuf(tags, values, step, now):
    summary = Summary(
        value=[Summary.Value(tag=t, simple_value=v) for t, v in zip(tags, values, strict=True)]
    )
    return Event(wall_time=now, step=step, summary=summary).SerializeToString()


def tensorboardx_record(message, path):
    writer = RecordWriter(str(path))
    writer.write(message)
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("checksum", [None, native.crc32c], ids=["tables", "c"])
@pytest.mark.parametrize("step", [1, 127, 128, 2**31, 2**63 - 1])
def test_a_record_is_to_the_byte_what_protobuf_and_tensorboardx_make(tmp_path, checksum, step):
    tags = ("train/loss", "ä", "x" * 200, *(f"m{i}" for i in range(40)))
    encoded = encode_step(step)
    record = RowRecord(tags, len(encoded), checksum)
    for round_ in range(3):
        values = np.random.default_rng(round_).normal(size=len(tags)) * 10.0**round_
        (written,) = map(bytes, record.fill(values[None], [encoded], [1.5e9 + round_]))
        expected = protobuf(tags, values, step, 1.5e9 + round_)
        assert written[HEAD:-TAIL] == expected
        assert written == tensorboardx_record(expected, tmp_path / str(round_))


@pytest.mark.parametrize("checksum", [None, native.crc32c], ids=["tables", "c"])
def test_records_of_many_rows_are_those_of_each(checksum):
    values = np.random.default_rng(0).normal(size=(7, 3))
    steps = [encode_step(number) for number in range(7)]
    times = [1.5e9 + number for number in range(7)]
    record = RowRecord(("a", "b", "c"), 1, checksum)
    rows = record.fill(values, steps, times)
    for number in range(7):
        (alone,) = record.fill(values[number : number + 1], [steps[number]], [times[number]])
        np.testing.assert_array_equal(rows[number], alone)
    assert len({row.tobytes() for row in rows}) == 7


def test_values_may_lie_column_by_column():
    # As they do in what `DataFrame.to_numpy` returns.
    values = np.arange(6.0).reshape(3, 2)
    record = RowRecord(("a", "b"), 1, None)
    rest = [encode_step(number) for number in range(3)], [0.0, 1.0, 2.0]
    by_column = record.fill(np.asfortranarray(values), *rest)
    np.testing.assert_array_equal(by_column, record.fill(values, *rest))


def test_values_beyond_float32_are_infinite():
    values = np.array([[1e300, -1e300, 1e-300]])
    (record,) = RowRecord(("a", "b", "c"), 1, None).fill(values, [encode_step(1)], [0.0])
    (a, b, c) = Event.FromString(bytes(record[HEAD:-TAIL])).summary.value
    assert (a.simple_value, b.simple_value, c.simple_value) == (np.inf, -np.inf, 0.0)


def test_a_step_below_zero_is_written_as_protobuf_does():
    assert encode_step(-1) == bytes([0xFF] * 9 + [0x01])


@given(st.binary(max_size=300))
def test_the_slow_checksum_is_that_of_the_c_package(data):
    assert crc32c(data) == native.crc32c(data)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_patched_checksum_is_that_of_the_whole(data, draw):
    places = draw.draw(st.sets(st.integers(0, len(data) - 1)).map(sorted).map(np.array))
    places = places.astype(np.intp)
    message = np.frombuffer(data, np.uint8).copy()
    content = message[places]
    message[places] = 0
    assert PatchedChecksum(message.tobytes(), places).of(content[None]) == [native.crc32c(data)]
