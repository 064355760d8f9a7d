"""The two ends of a journal, its last records first: what they cost does not grow with it."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lerax_dist.journal._reader import MAX_LINE_BYTES, Resumes
from lerax_dist.journal._record import Event, Record, Row, decode

# What is read at either end at first, and at most while a row is searched for.
_END_BYTES = 1 << 16
_MAX_END_BYTES = 1 << 24


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

    @property
    def last(self) -> Record | None:
        """The last record; `None` if none could be read."""
        records = self.tail or self.head
        return records[-1][1] if records else None


def read_ends(path: Path) -> Ends:
    """The first and the last records of a journal, at a cost that does not grow with it.

    Raises:
        OSError: it cannot be read.
        JournalFormatError: it is in a newer format.
    """
    with path.open("rb") as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        data = os.pread(fd, min(_END_BYTES, size), 0)
        head_size = data.rfind(b"\n") + 1
        head = [pair for pair in map(decode, io.BytesIO(data[:head_size])) if pair is not None]
        tail: list[tuple[int, Record]] = []
        resumes = Resumes()
        for pair in head:
            resumes.add(*pair)
        whole, has_row = True, False
        for start, line in read_backwards(fd, size, head_size):
            length = size - start
            if length > _MAX_END_BYTES or (has_row and length > _END_BYTES):
                whole = False
                break
            pair = decode(line)
            if pair is not None:
                tail.append(pair)
                resumes.add(*pair)
                has_row |= isinstance(pair[1], Row) and not resumes.hides_record(*pair)
    return Ends(
        size,
        [pair for pair in head if not resumes.hides_record(*pair)],
        [pair for pair in reversed(tail) if not resumes.hides_record(*pair)],
        whole,
    )


def read_last(fd: int, size: int) -> tuple[int, bool, Record | None]:
    """What a writer needs to know of a file that it continues.

    Args:
        fd: the file.
        size: its size.

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


def read_backwards(fd: int, size: int, stop: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, the last one first, each with the offset of its start.

    Args:
        fd: the file.
        size: its size.
        stop: offset of the start of the last line to give.
    """
    end, span = size, _END_BYTES
    while end > stop:
        start = max(end - span, stop)
        data = os.pread(fd, end - start, start)
        # The bytes before the first line end belong to a line that starts before this piece.
        cut = data.find(b"\n") + 1 if start > stop else 0
        if start > stop and not 0 < cut < len(data):
            if span < MAX_LINE_BYTES:
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


def state_of(ends: Ends, alive: bool) -> str:
    """How a run is: by its last record, else by whether its writer gives signs of life.

    Args:
        ends: the ends of its journal.
        alive: see `Liveness`.

    Returns:
        `"finished"`, `"failed"`, `"preempted"` (or what else its close record says), `"running"`,
        `"interrupted"` (it has no close record, and no writer), `"empty"` or `"damaged"` (no
        record could be read).
    """
    last = ends.last
    if isinstance(last, Event) and last.kind == "close":
        return str(last.body.get("state", "finished"))
    if last is None:
        return "damaged" if ends.size else "empty"
    return "running" if alive else "interrupted"
