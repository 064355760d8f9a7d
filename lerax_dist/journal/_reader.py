"""The reader of journals: whole, or as they grow. It never writes; for the two ends see `_ends`.

Whole lines are decoded many at once. A row that a later incarnation has superseded is left out, a
damaged line is counted, and a line that came twice counts once: so a file that was cut, changed or
pieced together gives its intact records and nothing else.
"""

import io
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist.journal._record import (
    Event,
    JournalFormatError,
    Record,
    Row,
    decode,
    event_of,
    parse,
)

JOURNAL = "journal.jsonl"

_CHUNK_BYTES = 1 << 20
# A line longer than this is damaged.
MAX_LINE_BYTES = 1 << 26
# Size of the beginning by which a file is distinguished from another one in its place.
_HEAD_BYTES = 256


@final
@dataclass
class Damage:
    """What is wrong with a journal, as far as it was read.

    Attributes:
        lines: whole lines that are damaged.
        missing: records whose numbers do not occur. A damaged line need not lose one: what could
            not be written whole is written again.
        torn: whether the last line has no end: it is being written, or its writer was killed.
    """

    lines: int = 0
    missing: int = 0
    torn: bool = False


class Rows(NamedTuple):
    """Rows of one piece of a journal that have the same metrics.

    Attributes:
        numbers: numbers of the records.
        times: see `Row`, as are the following.
        steps: global steps.
        iterations: numbers of iterations.
        names: names of the scalar metrics.
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
        for place, number in enumerate(self.numbers):
            time, step, iteration = self.times[place], self.steps[place], self.iterations[place]
            vectors = {name: values[place] for name, values in self.vectors.items()}
            yield number, Row(time, step, iteration, self.names, self.values[place], vectors)

    def take(self, places: Sequence[int]) -> "Rows":
        """Some of the rows."""
        return Rows(
            [self.numbers[place] for place in places],
            [self.times[place] for place in places],
            [self.steps[place] for place in places],
            [self.iterations[place] for place in places],
            self.names,
            self.values[places],
            {name: values[places] for name, values in self.vectors.items()},
        )


Batch = Rows | tuple[int, Event]


@final
class Resumes:
    """The `resume` records of a journal: each supersedes rows of the incarnations before it."""

    def __init__(self) -> None:
        self._starts: dict[int, int] = {}

    def add(self, number: int, record: Record) -> None:
        """Take note of a record; all that are no `resume` records are without effect."""
        if isinstance(record, Event) and record.kind == "resume":
            start = record.body.get("start_step")
            if isinstance(start, int):
                self._starts[number] = start

    def hides(self, number: int, step: Any) -> bool:
        """Whether a row or clip of a step is superseded, as far as is known by now."""
        return isinstance(step, int) and any(
            number < resume and step >= start for resume, start in self._starts.items()
        )

    def hides_record(self, number: int, record: Record) -> bool:
        """Whether a record is a superseded row or clip."""
        if isinstance(record, Row):
            return self.hides(number, record.step)
        return record.kind == "video" and self.hides(number, record.body.get("step"))

    def kept(self, rows: Rows) -> Rows:
        """The rows that are not superseded."""
        if not self._starts:
            return rows
        pairs = zip(rows.numbers, rows.steps, strict=True)
        places = [place for place, pair in enumerate(pairs) if not self.hides(*pair)]
        return rows if len(places) == len(rows.numbers) else rows.take(places)


@final
class _EventSearch:
    """Finds the events of a kind in a growing file, without decoding its other lines."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._mark = b'"kind":"%s"' % kind.encode()
        self._offset = 0

    def find(self, fd: int, size: int) -> Iterator[tuple[int, Event]]:
        """Those in the whole lines that are new, with their numbers."""
        while self._offset < size:
            data = os.pread(fd, min(4 * _CHUNK_BYTES, size - self._offset), self._offset)
            whole = data.rfind(b"\n") + 1
            if not data or (not whole and self._offset + len(data) >= size):
                return  # the last line has no end yet
            whole = whole or len(data)  # no event searched for is longer than a chunk
            self._offset += whole
            if self._mark in data:
                for line in io.BytesIO(data[:whole]):
                    found = decode(line) if self._mark in line else None
                    if found and isinstance(found[1], Event) and found[1].kind == self._kind:
                        yield found[0], found[1]


def find_events(journal: Path, kind: str) -> list[tuple[int, Event]]:
    """All events of a kind with their numbers, at the cost of a search for text.

    Raises:
        OSError: the journal cannot be read; one that does not exist holds none.
        JournalFormatError: it is in a newer format.
    """
    try:
        with journal.open("rb") as file:
            fd = file.fileno()
            return list(_EventSearch(kind).find(fd, os.fstat(fd).st_size))
    except FileNotFoundError:
        return []


@final
class JournalReader:
    """A reader of one journal: each record once, and only rows that are not superseded.

    What is read once is not read again, however often it is asked for more. Before records are
    handed out, all of the file that exists by then is searched for `resume` records, so a row
    that a later incarnation has superseded is left out. A row that was handed out before that
    record was written is the caller's to drop: the record itself is handed out like any other.

    Attributes:
        path: the file, which need not exist yet.
        damage: what is wrong with it, as far as it was read.
        superseded: number of rows that were left out.
        offset: bytes that were read.
        size: size of the file at the last look.
        generation: grows when another file is found in its place, which is read from its start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = -1
        self._start_anew()

    @property
    def behind(self) -> bool:
        """Whether there were whole lines left at the last look."""
        return self.offset < self.size and not self.damage.torn

    def records(self) -> Iterator[tuple[int, Record]]:
        """Number and record of each line that exists by now, and none that is written meanwhile.

        Raises:
            OSError: the file cannot be read.
            JournalFormatError: it is in a newer format.
        """
        for batches in self._pieces():
            yield from _in_order(batches)

    def batches(self) -> Iterator[Batch]:
        """What `records` gives, rows many at once; within a piece of the file in any order."""
        for batches in self._pieces():
            yield from batches

    def _pieces(self) -> Iterator[list[Batch]]:
        yield self._read(_CHUNK_BYTES)
        stop = self.size
        while self.behind and self.offset < stop:
            before = self.offset
            yield self._read(_CHUNK_BYTES, stop)
            if self.offset == before:
                return

    def read(self, max_bytes: int = _CHUNK_BYTES) -> list[tuple[int, Record]]:
        """Number and record of each line since the last call, of about `max_bytes` at most.

        A file that does not exist holds none; one that has replaced another is read from its start.

        Raises:
            OSError: the file cannot be read.
            JournalFormatError: it is in a newer format.
        """
        return _in_order(self._read(max_bytes))

    def _read(self, max_bytes: int, stop: int | None = None) -> list[Batch]:
        try:
            # Opened anew each time: a network file system looks again then, also for another file.
            with self.path.open("rb") as file:
                self._look(file.fileno())
                if self._newer is not None:
                    raise self._newer
                if self.size == self._done:
                    return []
                for found in self._search.find(file.fileno(), self.size):
                    self._resumes.add(*found)
                lines = self._lines(file.fileno(), max_bytes, stop)
        except (FileNotFoundError, NotADirectoryError):
            # Not there yet, or moved away for a moment: what was read stays read.
            self.size = self.offset
            return []
        try:
            return self._decode(lines)
        except JournalFormatError as error:
            # Kept: what follows would be guesses.
            self._newer = JournalFormatError(f"{self.path}: {error}")
            raise self._newer from None

    def _start_anew(self) -> None:
        self.generation += 1
        self.damage = Damage()
        self.superseded = 0
        self.offset = 0
        self.size = 0
        self._file_id = (0, 0)
        self._head = b""
        # The size up to which all was read: a torn line is looked at again when there is more.
        self._done = 0
        self._next = 0
        self._gaps: list[tuple[int, int]] = []
        self._resumes = Resumes()
        self._search = _EventSearch("resume")
        self._newer: JournalFormatError | None = None

    def _look(self, fd: int) -> None:
        """Find out whether it is the same file as before, and how long it is by now."""
        about = os.fstat(fd)
        file_id = (about.st_dev, about.st_ino)
        head = os.pread(fd, len(self._head), 0)
        if self._file_id != file_id or about.st_size < self.offset or head != self._head:
            self._start_anew()
        self._file_id, self.size = file_id, about.st_size
        if len(self._head) < _HEAD_BYTES:
            # Of two files with the same beginning, one is a copy of the other.
            self._head = os.pread(fd, min(_HEAD_BYTES, self.size), 0)

    def _lines(self, fd: int, max_bytes: int, stop: int | None) -> Iterable[bytes]:
        """Whole lines that follow; a line that has no end is not read."""
        end = self.size if stop is None else min(stop, self.size)
        span = max_bytes
        while True:
            data = os.pread(fd, max(0, min(span, end - self.offset)), self.offset)
            whole = data.rfind(b"\n") + 1
            at_end = self.offset + len(data) >= end or not data
            if not whole and len(data) >= MAX_LINE_BYTES:
                whole = len(data)
            if whole or at_end:
                break
            span *= 4
        self.offset += whole
        self.damage.torn = at_end and whole < len(data)
        if at_end and end == self.size:
            self._done = end
        return io.BytesIO(data[:whole])

    def _decode(self, lines: Iterable[bytes]) -> list[Batch]:
        batches: list[Batch] = []
        groups: dict[tuple[str, ...], _Group] = {}
        for line in lines:
            fields = parse(line)
            if fields is None:
                self.damage.lines += 1
            elif not self._is_new(fields["n"]):
                continue
            elif fields["kind"] == "row":
                # Rows with the same metrics are taken together also where others come in between:
                # programs log in turns.
                metrics = fields["metrics"]
                names = tuple(metrics)
                group = groups.get(names) or groups.setdefault(names, _Group(names))
                group.numbers.append(fields["n"])
                group.times.append(fields["time"])
                group.steps.append(fields["step"])
                group.iterations.append(fields.get("iteration"))
                group.values.extend(metrics.values())
            else:
                number, event = event_of(fields)
                if not self._resumes.hides_record(number, event):
                    batches.append((number, event))
        for group in groups.values():
            batches += self._rows(group)
        return batches

    def _is_new(self, number: int) -> bool:
        """Whether a record of this number is the first; takes note of the numbers in between."""
        if number == self._next:
            self._next += 1
            return True
        if number > self._next:
            self._gaps.append((self._next, number))
            self.damage.missing += number - self._next
            self._next = number + 1
            return True
        for place, (start, stop) in enumerate(self._gaps):
            if start <= number < stop:
                rest = [(start, number), (number + 1, stop)]
                self._gaps[place : place + 1] = [gap for gap in rest if gap[0] < gap[1]]
                self.damage.missing -= 1
                return True
        return False

    def _rows(self, group: "_Group") -> list[Rows]:
        """The rows of a group, less those that are superseded."""
        rows = group.decoded()
        if rows is None:
            # A row with a value that is no number, or a vector of another size, must not cost
            # its neighbors.
            singly = [row.decoded() for row in group.singly()]
            good = [rows for rows in singly if rows is not None]
            self.damage.lines += len(singly) - len(good)
        else:
            good = [rows]
        kept = [self._resumes.kept(rows) for rows in good]
        self.superseded += sum(len(rows.numbers) for rows in good)
        self.superseded -= sum(len(rows.numbers) for rows in kept)
        return [rows for rows in kept if rows.numbers]


def _in_order(batches: Iterable[Batch]) -> list[tuple[int, Record]]:
    """The records of a piece of a journal, by their numbers."""
    pairs: list[tuple[int, Record]] = []
    for batch in batches:
        pairs += batch.records() if isinstance(batch, Rows) else [batch]
    return sorted(pairs, key=operator.itemgetter(0))


@final
class _Group:
    """Parsed rows with the same metrics, column by column.

    One list of all values, not one a row: the garbage collector looks at each list again and again.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.numbers: list[int] = []
        self.times: list[float] = []
        self.steps: list[int] = []
        self.iterations: list[int | None] = []
        self.values: list[Any] = []

    def singly(self) -> "Iterator[_Group]":
        """A group for each row."""
        size = len(self.names)
        heads = zip(self.numbers, self.times, self.steps, self.iterations, strict=True)
        for place, (number, time, step, iteration) in enumerate(heads):
            one = _Group(self.names)
            one.numbers, one.times, one.steps = [number], [time], [step]
            one.iterations = [iteration]
            one.values = self.values[place * size : (place + 1) * size]
            yield one

    def decoded(self) -> Rows | None:
        """The rows; `None` if they must be taken one by one, or the only one is damaged."""
        heads = (self.numbers, self.times, self.steps, self.iterations)
        rows, size = len(self.numbers), len(self.names)
        # NumPy reads "NaN" and "Infinity", too.
        flat = _array(self.values, 1)
        if flat is not None:
            return Rows(*heads, self.names, flat.reshape(rows, size), {})
        names: list[str] = []
        scalars: list[np.ndarray] = []
        vectors: dict[str, np.ndarray] = {}
        for place, name in enumerate(self.names):
            column = _array(self.values[place::size], 1)
            if column is not None:
                names.append(name)
                scalars.append(column)
                continue
            column = _array(self.values[place::size], 2)
            if column is None:
                return None
            vectors[name] = column
        values = np.stack(scalars, axis=1) if scalars else np.empty((rows, 0))
        return Rows(*heads, tuple(names), values, vectors)


def _array(values: Sequence[Any], dimensions: int) -> np.ndarray | None:
    """An array of `dimensions` axes; `None` if the values do not make one."""
    try:
        array = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return array if array.ndim == dimensions else None
