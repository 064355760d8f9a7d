import json
import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist.journal import Event, JournalFormatError, Row, decode, encode
from tests.readers import decoded


def test_a_line_is_one_json_object_with_its_fields():
    line = encode(Row.of(1.5, 96, 3, {"train/loss": np.float64(0.25)}), 7)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    fields = json.loads(line)
    fields.pop("crc")
    assert fields == {
        "n": 7,
        "time": 1.5,
        "kind": "row",
        "step": 96,
        "iteration": 3,
        "metrics": {"train/loss": 0.25},
    }


@given(
    st.dictionaries(st.text(), st.floats(allow_nan=True, allow_infinity=True), max_size=5),
    st.integers(0, 2**62),
)
def test_every_row_comes_back_as_it_was(metrics, step):
    row = Row.of(0.1, step, None, {k: np.float64(v) for k, v in metrics.items()})
    line = encode(row, 3)
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    number, back = decoded(line)
    assert number == 3
    assert (back.step, back.time, back.iteration) == (step, 0.1, None)
    assert list(back.metrics) == list(row.metrics)
    for name, value in row.metrics.items():
        assert back.metrics[name] == value or (math.isnan(value) and math.isnan(back.metrics[name]))


def test_nan_and_infinity_are_kept_in_valid_json():
    metrics = {"a": np.float64("nan"), "b": np.float64("inf"), "c": np.float64("-inf")}
    line = encode(Row.of(0.0, 0, None, metrics), 0)
    assert json.loads(line)["metrics"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}


def test_an_event_comes_back_as_it_was():
    event = Event(2.0, "hparams", {"hparams": {"policy.width": 8, "rate": float("inf")}})
    _, back = decoded(encode(event, 0))
    assert back.kind == "hparams"
    assert back.body == {"hparams": {"policy.width": 8, "rate": "Infinity"}}


def test_a_value_that_json_does_not_know_becomes_its_text():
    _, back = decoded(encode(Event(0.0, "hparams", {"hparams": {"f": math.sin}}), 0))
    assert "sin" in back.body["hparams"]["f"]


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_is_noticed(place, byte):
    line = bytearray(encode(Row.of(1.5, 96, 3, {"train/loss": np.float64(0.25)}), 7))
    place %= len(line)
    changed = line[place] != byte
    line[place] = byte
    assert (decode(bytes(line)) is None) == changed


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b'{"n": 1', b"\x00" * 40])
def test_what_is_no_line_of_a_journal_is_damaged(line):
    assert decode(line) is None


def test_integers_of_any_size_come_back_whole():
    _, row = decoded(encode(Row.of(0.0, 2**70 + 1, None, {"x": np.float64(1.0)}), 0))
    assert row.step == 2**70 + 1
    _, event = decoded(encode(Event(0.0, "hparams", {"hparams": {"seed": 2**65 + 1}}), 0))
    assert event.body["hparams"]["seed"] == 2**65 + 1


def test_what_json_has_not_becomes_a_text_and_the_rest_of_the_event_is_kept():
    class Textless:
        def __str__(self):
            raise KeyError

    deep = {}
    for _ in range(5000):
        deep = {"in": deep}
    odd = {"big": 10**5000, "none": Textless(), 3: {1, 2}, "deep": deep, "nan": float("nan")}
    _, event = decoded(encode(Event(0.0, "hparams", {"hparams": odd, "good": [1]}), 0))
    assert event.body["good"] == [1]
    found = event.body["hparams"]
    assert int(found["big"], 16) == 10**5000
    assert found["none"] == "<Textless without a text: KeyError>"
    assert (found["3"], found["nan"]) == ("{1, 2}", "NaN")


def test_a_name_that_is_no_valid_text_is_kept_and_does_not_hide_its_row():
    _, row = decoded(encode(Row.of(0.0, 1, None, {"\ud800": np.float64(2.0)}), 0))
    assert row.metrics == {"\ud800": 2.0}


VECTORS = {"hist/a": np.array([1.0, np.nan, -np.inf]), "hist/b": np.array([2.0]), "c": np.zeros(0)}


@pytest.mark.parametrize("scalars", [{}, {"x": 0.5}, {"x": math.inf}])
def test_vectors_come_back_as_they_were(scalars):
    line = encode(Row.of(0.0, 1, None, scalars, VECTORS), 0)
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    _, row = decoded(line)
    assert row.metrics == scalars
    assert list(row.vectors) == list(VECTORS)
    for name, vector in VECTORS.items():
        np.testing.assert_array_equal(row.vectors[name], vector)
        assert row.vectors[name].dtype == np.float64


def test_finite_vectors_are_lists_in_the_line():
    line = encode(Row.of(0.0, 1, None, {"x": 1.0}, {"v": np.array([1.0, 2.5])}), 0)
    assert json.loads(line)["metrics"] == {"x": 1.0, "v": [1.0, 2.5]}


def test_an_open_record_says_the_format_and_a_newer_one_is_named():
    line = encode(Event(0.0, "open", {"name": "r"}), 0)
    assert json.loads(line)["format"] == 2
    assert decoded(line)[1].body == {"name": "r"}
    newer = sealed(line.replace(b'"format":2', b'"format":3'))
    with pytest.raises(JournalFormatError, match=r"format 3.*formats up to 2.*Install the version"):
        decode(newer)
    older = sealed(line.replace(b'"format":2,', b""))
    assert decoded(older)[1].body == {"name": "r"}


def sealed(line: bytes) -> bytes:
    """A line with the checksum that its content has."""
    body = line[: line.rindex(b',"crc"')] + b"}"
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


@pytest.mark.parametrize(
    "body",
    [
        *(b"{}", b"[]", b"7", b"{", b'{"kind":"row"}', b'{"n":1,"time":0,"kind":"row","step":1}'),
        b'{"n":1,"time":0,"kind":"row","step":1,"metrics":{"x":{}}}',
        b'{"n":1,"time":0,"kind":"row","step":1.5,"metrics":{}}',
        b'{"n":1,"time":0,"kind":"row","step":1,"metrics":{"x":[[1]]}}',
        b'{"n":"a","time":0,"kind":"open"}',
    ],
)
def test_a_line_whose_checksum_is_right_and_that_is_no_record_is_damaged(body):
    assert decode(b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body[:-1] + b"}"))) is None
