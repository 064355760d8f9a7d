"""The format of a journal: one record a line, as JSON with its own checksum. Pure.

A line is a JSON object whose last key, `crc`, is the CRC-32 of the line without that key:
`{"n":7,"time":1.5,"kind":"row","step":96, ..., "crc":"0badf00d"}`. JSON has no NaN and no
infinity, so those are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`; `float()` reads them.

An `open` record, which each incarnation writes first, has the version of the format of what
follows: `"format":2`. Version 1 has no such field and no vectors; nothing else is different.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self, final

import numpy as np

_NO_VECTORS: Mapping[str, np.ndarray] = MappingProxyType({})


class Row(NamedTuple):
    """One row of metrics. Rows of one batch share their names, and the array behind `values`.

    Attributes:
        time: when the row reached the host, in seconds since the epoch.
        step: global step.
        iteration: number of the iteration; `None` if it has none.
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
        kind: `"open"`, `"resume"`, `"hparams"`, `"start"`, `"video"`, `"dropped"` or `"close"`.
        body: its other fields, as JSON values.
    """

    time: float
    kind: str
    body: dict[str, Any]


Record = Row | Event

# Version of the format that this writes; it reads every version up to this.
_FORMAT = 2
_TAIL = len(',"crc":"00000000"}\n')
_COMPACT = (",", ":")
# Levels of nesting in an event; Python's own limit is a few hundred.
_MAX_DEPTH = 64


class JournalFormatError(RuntimeError):
    """A journal is in a newer format than this version of lerax_dist reads."""


def encode(record: Record, number: int) -> bytes:
    """One line of the journal, with its line end; `number` is the record's in its journal."""
    fields: dict[str, Any] = {"n": number, "time": record.time}
    if isinstance(record, Row):
        body = _row_body(fields, record)
    else:
        fields["kind"] = record.kind
        if record.kind == "open":
            fields["format"] = _FORMAT
        body = to_json(fields | record.body)
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


def _row_body(fields: dict[str, Any], row: Row) -> bytes:
    """By orjson, which takes a tenth of the time: rows are many."""
    # Inside: a process that does not write must not load it.
    import orjson

    fields |= {"kind": "row", "step": row.step}
    if row.iteration is not None:
        fields["iteration"] = row.iteration
    # Python floats: making them and their text takes half the time of NumPy's.
    values = row.values.tolist()
    metrics = fields["metrics"] = dict(zip(row.names, values, strict=True))
    # A sum is not finite if one of its terms is not; far faster than to look at each.
    finite = math.isfinite(sum(values))
    for name, vector in row.vectors.items():
        metrics[name] = vector.tolist()
        finite = finite and math.isfinite(sum(metrics[name]))
    if finite:
        try:
            return orjson.dumps(fields)
        except TypeError:
            pass  # E.g. a step of more than 64 bits.
    # orjson would write `null` for NaN.
    return to_json(fields)


def to_json(value: Any) -> bytes:
    """JSON of a value, or of the nearest that JSON has."""
    try:
        return json.dumps(value, allow_nan=False, separators=_COMPACT).encode()
    except (ValueError, TypeError, RecursionError):
        return json.dumps(_encodable(value), separators=_COMPACT).encode()


def _encodable(value: Any, depth: int = 0) -> Any:
    """The nearest that JSON has; a text that says so in place of what has none."""
    if depth > _MAX_DEPTH:
        return f"<more than {_MAX_DEPTH} levels>"
    if isinstance(value, Mapping):
        return {str(key): _encodable(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(inner, depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    try:
        json.dumps(value)
        return value
    except Exception:
        pass  # E.g. an integer of 5,000 digits, whose text raises as well.
    try:
        return hex(value) if isinstance(value, int) else str(value)
    except Exception as error:
        return f"<{type(value).__name__} without a text: {type(error).__name__}>"


def decode(line: bytes) -> tuple[int, Record] | None:
    """Number and record of a line; `None` if the line is damaged.

    Raises:
        JournalFormatError: what follows the line is in a newer format.
    """
    fields = parse(line)
    if fields is None:
        return None
    if fields["kind"] != "row":
        return event_of(fields)
    metrics = fields["metrics"]
    values = _array(list(metrics.values()), 1)
    if values is not None:
        head = (fields["time"], fields["step"], fields.get("iteration"))
        return fields["n"], Row(*head, tuple(metrics), values)
    parsed = ParsedRows(tuple(metrics))
    parsed.add(fields)
    rows, _ = parsed.decoded()
    return next(rows[0].records()) if rows else None


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
    """By Python's `json`: it keeps integers of any size, and reads names that are not UTF-8."""
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
    """Number and event of what `parse` returns for one.

    Raises:
        JournalFormatError: see `decode`.
    """
    body = {key: value for key, value in fields.items() if key not in ("n", "time", "kind")}
    if fields["kind"] == "open":
        version = body.pop("format", 1)
        if version not in range(1, _FORMAT + 1):
            raise JournalFormatError(
                f"the journal is in format {version!r}; this version of lerax_dist reads formats "
                f"up to {_FORMAT}. Install the version of lerax_dist that wrote it, or a newer one."
            )
    return fields["n"], Event(fields["time"], fields["kind"], body)


class Rows(NamedTuple):
    """Rows that have the same metrics, column by column; for the fields see `Row`.

    Attributes:
        numbers: numbers of the records.
        values: `(rows, metrics)` float64.
        vectors: name to `(rows, size)` float64.
    """

    numbers: Sequence[int]
    times: Sequence[float]
    steps: Sequence[int]
    iterations: Sequence[int | None]
    names: tuple[str, ...]
    values: np.ndarray
    vectors: Mapping[str, np.ndarray]

    def records(self) -> Iterator[tuple[int, Row]]:
        """Each row with its number."""
        for i, number in enumerate(self.numbers):
            vectors = {name: values[i] for name, values in self.vectors.items()}
            head = (self.times[i], self.steps[i], self.iterations[i])
            yield number, Row(*head, self.names, self.values[i], vectors)


@final
class ParsedRows:
    """Rows with the same metrics as `parse` returns them, collected to be decoded at once.

    One list of all values, not one a row: the garbage collector looks at each list again and again.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._steps: list[int] = []
        self._iterations: list[int | None] = []
        self._values: list[Any] = []

    def add(self, fields: Mapping[str, Any]) -> None:
        """Add a row."""
        self._numbers.append(fields["n"])
        self._times.append(fields["time"])
        self._steps.append(fields["step"])
        self._iterations.append(fields.get("iteration"))
        self._values.extend(fields["metrics"].values())

    def decoded(self) -> tuple[list[Rows], int]:
        """The rows, and how many are damaged: a value is neither a number nor a list of numbers."""
        whole = self._decode(0, len(self._numbers))
        if whole is not None:
            return [whole], 0
        # A damaged row, or a vector of another size, must not cost its neighbors.
        each = [self._decode(i, i + 1) for i in range(len(self._numbers))]
        good = [rows for rows in each if rows is not None]
        return good, len(each) - len(good)

    def _decode(self, start: int, stop: int) -> Rows | None:
        """Some of the rows; `None` if the values of a metric do not make one array."""
        part, size = slice(start, stop), len(self._names)
        numbers = self._numbers[part]
        heads = (numbers, self._times[part], self._steps[part], self._iterations[part])
        parsed = self._values[size * start : size * stop]
        # NumPy reads "NaN" and "Infinity", too.
        flat = _array(parsed, 1)
        if flat is not None:
            return Rows(*heads, self._names, flat.reshape(len(numbers), size), {})
        names: list[str] = []
        scalars: list[np.ndarray] = []
        vectors: dict[str, np.ndarray] = {}
        for i, name in enumerate(self._names):
            column = _array(parsed[i::size], 1)
            if column is not None:
                names.append(name)
                scalars.append(column)
                continue
            column = _array(parsed[i::size], 2)
            if column is None:
                return None
            vectors[name] = column
        values = np.stack(scalars, axis=1) if scalars else np.empty((len(numbers), 0))
        return Rows(*heads, tuple(names), values, vectors)


def _array(values: Sequence[Any], dimensions: int) -> np.ndarray | None:
    """An array of `dimensions` axes; `None` if the values do not make one."""
    try:
        array = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.ndim == dimensions else None
