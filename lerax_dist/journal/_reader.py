"""Reads journals: whole, as they grow, or only their two ends. It never writes.

Whole lines are decoded many at once. A row that a later incarnation has superseded is left out, a
damaged line is counted, and a record that occurs twice counts once: so a file that was cut, changed
or pieced together gives its intact records and nothing else.
"""

import functools
import io
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from lerax_dist.journal._record import (
    Event,
    JournalFormatError,
    ParsedRows,
    Record,
    Row,
    Rows,
    decode,
    event_of,
    parse,
)

JOURNAL = "journal.jsonl"

# What is decoded at once, about.
_CHUNK_BYTES = 1 << 20
# A line longer than this is damaged.
_MAX_LINE_BYTES = 1 << 26
# Size of the beginning by which a file is distinguished from another one in its place.
_HEAD_BYTES = 256
# What is read at either end at first, and at most while a row is searched for.
_END_BYTES = 1 << 16
_MAX_END_BYTES = 1 << 24
# In the line of each event that supersedes rows.
_RESUME = b'"kind":"resume"'
# Metrics that the logger adds to some rows of any kind.
_OF_LOGGER = ("lerax_dist/", "time/steps_per_second", "time/iteration_seconds")


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


Batch = Rows | tuple[int, Event]


@final
class _Resumes:
    """The `resume` records of a journal: each supersedes rows of the incarnations before it."""

    def __init__(self) -> None:
        # Numbers of the first record that may go and that stays, first step that goes, by metric.
        self._resumes: list[tuple[int, int, int, Mapping[str, int] | None]] = []
        # The first three, as far as they apply to rows with such metrics.
        self._by_names: dict[tuple[str, ...], list[tuple[int, int, int]]] = {}

    def add(self, number: int, record: Record) -> None:
        """Add a record; only `resume` records have an effect."""
        if isinstance(record, Event) and record.kind == "resume":
            start, metrics = record.body.get("start_step"), record.body.get("metrics")
            if isinstance(start, int):
                since, before = record.body.get("since", 0), record.body.get("before", number)
                self._resumes.append((since, before, start, metrics))
                self._by_names.clear()

    def hides(self, number: int, record: Record) -> bool:
        """Whether a record is a row or clip that is superseded, as far as is known by now."""
        found = step_and_names(record)
        return found is not None and self.hides_step(number, *found)

    def hides_step(self, number: int, step: Any, names: tuple[str, ...]) -> bool:
        """Whether a row or clip of a step, with such metrics, is superseded."""
        if not self._resumes or not isinstance(step, int):
            return False
        if (found := self._by_names.get(names)) is None:
            found = self._by_names[names] = self._applying_to(own_metrics(names))
        return any(since <= number < stop and step >= start for since, stop, start in found)

    def _applying_to(self, own: frozenset[str]) -> list[tuple[int, int, int]]:
        starts: list[tuple[int, int, int]] = []
        for since, before, start, metrics in self._resumes:
            if metrics is None:
                starts.append((since, before, start))
            elif own and own <= metrics.keys():
                starts.append((since, before, max(metrics[name] for name in own)))
        return starts


def step_and_names(record: Record) -> tuple[Any, tuple[str, ...]] | None:
    """Step and metrics of a row, or of a clip, whose metric is its tag; `None` for other events."""
    if isinstance(record, Row):
        return record.step, (*record.names, *record.vectors)
    if record.kind != "video":
        return None
    return record.body.get("step"), (str(record.body.get("tag")),)


@functools.lru_cache(1024)
def own_metrics(names: tuple[str, ...]) -> frozenset[str]:
    """The metrics of the user among some names: those of the logger come and go."""
    return frozenset(name for name in names if not name.startswith(_OF_LOGGER))


@final
class JournalReader:
    """A reader of one journal: each record once, and only rows that are not superseded.

    What is read once is not read again, however often it is asked for more. Before records are
    returned, all of the file that exists by then is searched for `resume` records, so a row that a
    later incarnation has superseded is left out. A row that was returned before that record was
    written is the caller's to drop: the record itself is returned like any other.

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
        for batches in self.pieces():
            yield from _in_order(batches)

    def pieces(self) -> Iterator[list[Batch]]:
        """What `records` returns, rows many at once; within a piece of the file in any order."""
        yield self._read()
        stop = self.size
        while self.behind and self.offset < stop:
            before = self.offset
            yield self._read(stop)
            if self.offset == before:
                return

    def read(self) -> list[tuple[int, Record]]:
        """Number and record of each line since the last call, of about 1 MB at most.

        A file that does not exist has none; one that has replaced another is read from its start.

        Raises:
            OSError: the file cannot be read.
            JournalFormatError: it is in a newer format.
        """
        return _in_order(self._read())

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
        self._resumes = _Resumes()
        self._searched = 0
        self._newer: JournalFormatError | None = None

    def _read(self, stop: int | None = None) -> list[Batch]:
        try:
            # Opened anew each time: a network file system looks again then, also for another file.
            with self.path.open("rb") as file:
                self._look(file.fileno())
                if self._newer is not None:
                    raise self._newer
                if self.size == self._done:
                    return []
                self._find_resumes(file.fileno())
                end = self.size if stop is None else min(stop, self.size)
                data = _read_lines(file.fileno(), self.offset, end, _CHUNK_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            # Not there yet, or moved away for a moment: what was read stays read.
            self.size = self.offset
            return []
        # What is left is a line without an end if all of it was looked at.
        looked = not data or end - self.offset <= _CHUNK_BYTES
        self.offset += len(data)
        self.damage.torn = looked and self.offset < end
        if end == self.size and (self.offset == end or self.damage.torn):
            self._done = end
        try:
            return self._decode(io.BytesIO(data))
        except JournalFormatError as error:
            # Kept: what follows would be guesses.
            self._newer = JournalFormatError(f"{self.path}: {error}")
            raise self._newer from None

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

    def _find_resumes(self, fd: int) -> None:
        """Find the `resume` records in the new lines, without decoding the other lines."""
        while data := _read_lines(fd, self._searched, self.size, 4 * _CHUNK_BYTES):
            self._searched += len(data)
            if _RESUME in data:
                for line in io.BytesIO(data):
                    found = decode(line) if _RESUME in line else None
                    if found is not None:
                        self._resumes.add(*found)

    def _decode(self, lines: Iterable[bytes]) -> list[Batch]:
        batches: list[Batch] = []
        groups: dict[tuple[str, ...], ParsedRows] = {}
        for line in lines:
            fields = parse(line)
            if fields is None:
                self.damage.lines += 1
            elif not self._is_new(fields["n"]):
                continue
            elif fields["kind"] == "row":
                names = tuple(fields["metrics"])
                if self._resumes.hides_step(fields["n"], fields["step"], names):
                    self.superseded += 1
                    continue
                # Rows with the same metrics are decoded together, also if other rows are between
                # them: programs log in turns.
                group = groups.get(names)
                if group is None:
                    group = groups[names] = ParsedRows(names)
                group.add(fields)
            else:
                number, event = event_of(fields)
                if not self._resumes.hides(number, event):
                    batches.append((number, event))
        for group in groups.values():
            rows, damaged = group.decoded()
            batches += rows
            self.damage.lines += damaged
        return batches

    def _is_new(self, number: int) -> bool:
        """Whether a record of this number is the first; notes the numbers in between."""
        if number == self._next:
            self._next += 1
            return True
        if number > self._next:
            self._gaps.append((self._next, number))
            self.damage.missing += number - self._next
            self._next = number + 1
            return True
        for i, (start, stop) in enumerate(self._gaps):
            if start <= number < stop:
                rest = [(start, number), (number + 1, stop)]
                self._gaps[i : i + 1] = [gap for gap in rest if gap[0] < gap[1]]
                self.damage.missing -= 1
                return True
        return False


def _in_order(batches: Iterable[Batch]) -> list[tuple[int, Record]]:
    """The records of a piece of a journal, by their numbers."""
    pairs: list[tuple[int, Record]] = []
    for batch in batches:
        pairs += batch.records() if isinstance(batch, Rows) else [batch]
    return sorted(pairs, key=operator.itemgetter(0))


def _read_lines(fd: int, start: int, stop: int, span: int) -> bytes:
    """Whole lines of a file from `start` on: about `span` bytes, and one line at least.

    Empty if the line at `start` has no end before `stop`.
    """
    while True:
        data = os.pread(fd, min(span, stop - start), start)
        whole = data.rfind(b"\n") + 1
        if whole or len(data) < span:
            return data[:whole]
        if span >= _MAX_LINE_BYTES:
            return data  # far too long for a line: it is damaged
        span *= 4


def read_backwards(fd: int, size: int, stop: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, the last one first, down to the offset `stop`, each with its offset."""
    end, span = size, _END_BYTES
    while end > stop:
        start = max(end - span, stop)
        data = os.pread(fd, end - start, start)
        # The bytes before the first line end belong to a line that starts before this piece.
        cut = data.find(b"\n") + 1 if start > stop else 0
        if start > stop and not 0 < cut < len(data):
            if span < _MAX_LINE_BYTES:
                span *= 4
                continue
            yield start, b""  # far too long for a line: it is damaged
            end = start
            continue
        offset = end
        for line in reversed(io.BytesIO(data[cut:]).readlines()):
            offset -= len(line)
            yield offset, line
        end, span = start + cut, _END_BYTES


@final
@dataclass(frozen=True)
class Ends:
    """The two ends of a journal. Rows that were superseded are left out.

    Attributes:
        size: bytes of the file.
        head: first records, with their numbers.
        tail: last records; not those of the head.
        whole: whether there is nothing in between.
    """

    size: int
    head: list[tuple[int, Record]] = field(default_factory=list)
    tail: list[tuple[int, Record]] = field(default_factory=list)
    whole: bool = True


def read_ends(path: Path) -> Ends:
    """The first and the last records of a journal, at a cost that does not grow with it.

    Raises:
        OSError: it cannot be read.
        JournalFormatError: it is in a newer format.
    """
    resumes = _Resumes()
    tail: list[tuple[int, Record]] = []
    whole, has_row = True, False
    with path.open("rb") as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        data = _read_lines(fd, 0, size, _END_BYTES)
        head = [pair for pair in map(decode, io.BytesIO(data)) if pair is not None]
        for pair in head:
            resumes.add(*pair)
        for start, line in read_backwards(fd, size, len(data)):
            length = size - start
            if length > _MAX_END_BYTES or (has_row and length > _END_BYTES):
                whole = False
                break
            pair = decode(line)
            if pair is not None:
                tail.append(pair)
                resumes.add(*pair)
                has_row |= isinstance(pair[1], Row) and not resumes.hides(*pair)
    return Ends(
        size,
        [pair for pair in head if not resumes.hides(*pair)],
        [pair for pair in reversed(tail) if not resumes.hides(*pair)],
        whole,
    )


def read_last(fd: int, size: int) -> tuple[int, bool, Record | None]:
    """What a writer must know of a file that it continues.

    Returns:
        The number after the last whole record, whether the file ends within a line, and that
        record, `None` if there is none.

    Raises:
        JournalFormatError: the file is in a newer format.
    """
    if size == 0:
        return 0, False, None
    decode(os.pread(fd, _END_BYTES, 0).partition(b"\n")[0] + b"\n")  # raises if it is newer
    torn = os.pread(fd, 1, size - 1) != b"\n"
    for _, line in read_backwards(fd, size):
        pair = decode(line)
        if pair is not None:
            return pair[0] + 1, torn, pair[1]
    return 0, torn, None


def state_of(ends: Ends, alive: bool) -> str:
    """How a run is, by its last record, else by whether its writer is alive (see `Liveness`).

    Returns:
        `"finished"`, `"failed"`, `"preempted"` (or what else its close record says), `"running"`,
        `"interrupted"` (it has no close record, and no writer), `"empty"` or `"damaged"` (no
        record could be read).
    """
    records = ends.tail or ends.head
    if not records:
        return "damaged" if ends.size else "empty"
    last = records[-1][1]
    if isinstance(last, Event) and last.kind == "close":
        return str(last.body.get("state", "finished"))
    return "running" if alive else "interrupted"
