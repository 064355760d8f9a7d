"""What the journal holds: one record a line, as JSON with its own checksum. Pure.

A line is a JSON object whose last key, `crc`, is the CRC-32 of the line without that key:
`{"n":7,"time":1.5,"kind":"row","step":96, ..., "crc":"0badf00d"}`. JSON has no NaN and no
infinity, so those are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`; `float()` reads them.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, final

import numpy as np


class Row(NamedTuple):
    """One row of metrics. Rows that came together share their names, and the array behind `values`.

    Attributes:
        time: when the row reached the host, in seconds since the epoch.
        step: global step.
        iteration: number of the iteration; `None` if there is none.
        names: flat names of the metrics.
        values: `(metrics,)` float64, a value for each name.
    """

    time: float
    step: int
    iteration: int | None
    names: tuple[str, ...]
    values: np.ndarray

    @classmethod
    def of(
        cls, time: float, step: int, iteration: int | None, metrics: Mapping[str, float]
    ) -> Self:
        """A row of metrics by name."""
        values = np.fromiter(metrics.values(), np.float64, len(metrics))
        return cls(time, step, iteration, tuple(metrics), values)

    @property
    def metrics(self) -> dict[str, np.float64]:
        """Name to value; made anew each time."""
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

_TAIL = len(',"crc":"00000000"}\n')
_COMPACT = (",", ":")


def encode(record: Record, number: int) -> bytes:
    """One line of the journal, with its line end.

    Args:
        record: what to write.
        number: number of the record in its journal.
    """
    head: dict[str, Any] = {"n": number, "time": record.time}
    if isinstance(record, Row):
        head |= {"kind": "row", "step": record.step}
        if record.iteration is not None:
            head["iteration"] = record.iteration
        # Python's own floats: making them and their text takes half the time of NumPy's.
        values = record.values.tolist()
        head["metrics"] = dict(zip(record.names, values, strict=True))
        # JSON lacks what is not finite, and their sum is not if one of them is not.
        body = _row_body(head) if math.isfinite(sum(values)) else _any_body(head)
    else:
        body = _any_body(head | {"kind": record.kind, **record.body})
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def _row_body(fields: dict[str, Any]) -> bytes:
    """Rows are many: orjson takes a tenth of the time for them."""
    # Inside: a process that does not write must not load it.
    import orjson

    try:
        return orjson.dumps(fields)
    except TypeError:
        # E.g. a step of more than 64 bits.
        return _any_body(fields)


def _any_body(fields: dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, allow_nan=False, default=str, separators=_COMPACT).encode()
    except ValueError:
        return json.dumps(_without_nan(fields), default=str, separators=_COMPACT).encode()


def decode(line: bytes) -> tuple[int, Record] | None:
    """Number and record of a line; `None` if the line is damaged."""
    body = line[:-_TAIL] + b"}"
    if line[-_TAIL:] != b',"crc":"%08x"}\n' % zlib.crc32(body):
        return None
    import orjson

    try:
        fields = orjson.loads(body)
    except ValueError:
        # Half a surrogate pair in a name, which only Python's own reads.
        fields = json.loads(body)
    if fields["kind"] != "row" or not isinstance(fields["step"], int):
        # It keeps integers of more than 64 bits, which hyperparameters may be.
        fields = json.loads(body)
    number, time, kind = fields.pop("n"), fields.pop("time"), fields.pop("kind")
    if kind != "row":
        return number, Event(time, kind, fields)
    metrics = {name: float(value) for name, value in fields["metrics"].items()}
    return number, Row.of(time, fields["step"], fields.get("iteration"), metrics)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
