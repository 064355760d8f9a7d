"""What the journal holds: one record a line, as JSON with its own checksum. Pure.

A line is a JSON object whose last key, `crc`, is the CRC-32 of the line without that key:
`{"n":7,"time":1.5,"kind":"row","step":96, ..., "crc":"0badf00d"}`. JSON has no NaN and no
infinity, so those are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`; `float()` reads them.

An `open` record, which each incarnation writes first, says the version of the format of what
follows: `"format":2`. Version 1 says none, and has no vectors; nothing else is different.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self, final

import numpy as np

_NO_VECTORS: Mapping[str, np.ndarray] = MappingProxyType({})


class Row(NamedTuple):
    """One row of metrics. Rows that came together share their names, and the array behind `values`.

    Attributes:
        time: when the row reached the host, in seconds since the epoch.
        step: global step.
        iteration: number of the iteration; `None` if there is none.
        names: flat names of the scalar metrics.
        values: `(metrics,)` float64, a value for each name.
        vectors: name to value of the metrics whose value is a vector, each `(size,)` float64.
    """

    time: float
    step: int
    iteration: int | None
    names: tuple[str, ...]
    values: np.ndarray
    vectors: Mapping[str, np.ndarray] = _NO_VECTORS

    @classmethod
    def of(
        cls,
        time: float,
        step: int,
        iteration: int | None,
        metrics: Mapping[str, float],
        vectors: Mapping[str, np.ndarray] = _NO_VECTORS,
    ) -> Self:
        """A row of metrics by name."""
        values = np.fromiter(metrics.values(), np.float64, len(metrics))
        return cls(time, step, iteration, tuple(metrics), values, vectors)

    @property
    def metrics(self) -> dict[str, np.float64]:
        """Name to value of the scalar metrics; made anew each time."""
        return dict(zip(self.names, self.values, strict=True))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """Something that happens to a run rather than in it.

    Attributes:
        time: when, in seconds since the epoch.
        kind: `"open"`, `"resume"`, `"hparams"`, `"start"`, `"video"` or `"close"`.
        body: what else there is to say, fit for JSON.
    """

    time: float
    kind: str
    body: dict[str, Any]


Record = Row | Event

FORMAT = 2
"""Version of the format that this writes; it reads every version up to this."""

_TAIL = len(',"crc":"00000000"}\n')
_COMPACT = (",", ":")


class JournalFormatError(RuntimeError):
    """A journal is in a newer format than this version of lerax_dist reads."""


def encode(record: Record, number: int) -> bytes:
    """One line of the journal, with its line end.

    Args:
        record: what to write.
        number: number of the record in its journal.
    """
    head: dict[str, Any] = {"n": number, "time": record.time}
    if isinstance(record, Event):
        head["kind"] = record.kind
        if record.kind == "open":
            head["format"] = FORMAT
        body = _any_body(head | record.body)
    else:
        body = _row_body(head | _row_fields(record))
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def _row_fields(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": "row", "step": row.step}
    if row.iteration is not None:
        fields["iteration"] = row.iteration
    # Python's own floats: making them and their text takes half the time of NumPy's.
    fields["metrics"] = dict(zip(row.names, row.values.tolist(), strict=True))
    for name, vector in row.vectors.items():
        fields["metrics"][name] = vector.tolist()
    return fields


def _row_body(fields: dict[str, Any]) -> bytes:
    """Rows are many: orjson takes a tenth of the time for them."""
    # Inside: a process that does not write must not load it.
    import orjson

    if not _all_finite(fields["metrics"]):
        return _any_body(fields)
    try:
        return orjson.dumps(fields)
    except TypeError:
        # E.g. a step of more than 64 bits.
        return _any_body(fields)


def _all_finite(metrics: Mapping[str, Any]) -> bool:
    """Whether orjson may write the values: it writes `null` for those that JSON lacks."""
    try:
        # A sum is not finite if one of its terms is not; far faster than to look at each.
        return math.isfinite(sum(metrics.values()))
    except TypeError:
        return all(
            math.isfinite(sum(value) if isinstance(value, list) else value)
            for value in metrics.values()
        )


def _any_body(fields: dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, allow_nan=False, default=str, separators=_COMPACT).encode()
    except ValueError:
        return json.dumps(_without_nan(fields), default=str, separators=_COMPACT).encode()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def decode(line: bytes) -> tuple[int, Record] | None:
    """Number and record of a line; `None` if the line is damaged.

    Raises:
        JournalFormatError: the line says that what follows is in a newer format.
    """
    fields = parse(line)
    if fields is None:
        return None
    return row_of(fields) if fields["kind"] == "row" else event_of(fields)


def parse(line: bytes) -> dict[str, Any] | None:
    """The fields of a line: `n`, `time` and `kind`, of a row `step` and `metrics` as well.

    Returns:
        Name to value; `None` if the line is damaged.
    """
    # Inside, see `_row_body`.
    import orjson

    body = line[:-_TAIL] + b"}"
    if line[-_TAIL:] != b',"crc":"%08x"}\n' % zlib.crc32(body):
        return None
    try:
        fields = orjson.loads(body)
        # Types are compared, as a big integer becomes a float here.
        if fields["kind"] == "row" and type(fields["step"]) is type(fields["n"]) is int:
            if type(fields["metrics"]) is dict and type(fields["time"]) is float:
                return fields
    except (ValueError, TypeError, LookupError):
        pass
    return _parse_anything(body)


def _parse_anything(body: bytes) -> dict[str, Any] | None:
    """By Python's own reader: it keeps integers of any size, and reads names that are no UTF-8."""
    try:
        fields = json.loads(body)
        number, time, kind = fields["n"], fields["time"], fields["kind"]
        good = type(number) is int and type(time) in (float, int) and type(kind) is str
        if good and kind == "row":
            good = type(fields["step"]) is int and type(fields["metrics"]) is dict
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return fields if good else None


def event_of(fields: Mapping[str, Any]) -> tuple[int, Event]:
    """Number and event of what `parse` gives for one.

    Raises:
        JournalFormatError: see `decode`.
    """
    body = {key: value for key, value in fields.items() if key not in ("n", "time", "kind")}
    if fields["kind"] == "open":
        _check_format(body.pop("format", 1))
    return fields["n"], Event(fields["time"], fields["kind"], body)


def row_of(fields: Mapping[str, Any]) -> tuple[int, Row] | None:
    """Number and row of what `parse` gives for one; `None` if a value is not a number."""
    number, time, step = fields["n"], fields["time"], fields["step"]
    iteration, metrics = fields.get("iteration"), fields["metrics"]
    try:
        # NumPy reads "NaN" and "Infinity", too.
        values = np.array(list(metrics.values()), np.float64)
        if values.ndim == 1:
            return number, Row(time, step, iteration, tuple(metrics), values)
    except (ValueError, TypeError, OverflowError):
        pass
    scalars: dict[str, float] = {}
    vectors: dict[str, np.ndarray] = {}
    try:
        for name, value in metrics.items():
            array = np.array(value, np.float64)
            if array.ndim == 1:
                vectors[name] = array
            else:
                scalars[name] = float(array)
    except (ValueError, TypeError, OverflowError):
        return None
    return number, Row.of(time, step, iteration, scalars, vectors)


def _check_format(version: Any) -> None:
    if version not in range(1, FORMAT + 1):
        raise JournalFormatError(
            f"the journal is in format {version!r}; this version of lerax_dist reads formats up "
            f"to {FORMAT}. Install the version that wrote it, or a newer one: "
            "`pip install --upgrade lerax-dist`."
        )
