"""Reads journals, and never writes them: all of one, or only its two ends."""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, final

from lerax_dist.host._record import Record, Row, decode

JOURNAL = "journal.jsonl"

_END_BYTES = 1 << 16
# A tail in which no record is whole is looked for no further back than this.
_MOST_BYTES = 1 << 24


@final
@dataclass
class Damage:
    """What was wrong with a journal, as far as it was read.

    Attributes:
        lines: whole lines that are damaged.
        missing: records whose numbers do not come. A damaged line need not lose one: what could
            not be written whole is written again.
        torn: whether the last line has no end: it is being written, or its writer was killed.
    """

    lines: int = 0
    missing: int = 0
    torn: bool = False


@final
@dataclass(frozen=True)
class Ends:
    """The two ends of a journal.

    Attributes:
        size: bytes of the file.
        head: first records, with their numbers.
        tail: last records; not those of the head.
        whole: whether there is nothing in between.
        locked: whether a logger has it open; None if its file system knows no locks, or if it was
            not asked, as the run has ended.
    """

    size: int
    head: list[tuple[int, Record]] = field(default_factory=list)
    tail: list[tuple[int, Record]] = field(default_factory=list)
    whole: bool = True
    locked: bool | None = None


def read_records(file: BinaryIO, damage: Damage) -> Iterator[tuple[int, Record]]:
    """Number and record of a journal's lines, in order, each once.

    Args:
        file: the journal, open for reading.
        damage: what is wrong is counted here.
    """
    following = 0
    for line in file:
        if not line.endswith(b"\n"):
            damage.torn = True
            return
        decoded = decode(line)
        if decoded is None:
            damage.lines += 1
            continue
        number, record = decoded
        if number >= following:
            damage.missing += number - following
            following = number + 1
            yield number, record


def read_ends(path: Path) -> Ends:
    """The first and the last records of a journal, at a cost that does not grow with it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        head_size = min(_END_BYTES, size)
        head_lines = os.pread(descriptor, head_size, 0).splitlines(keepends=True)
        head = _decoded(head_lines)
        last_of_head = head[-1][0] if head else -1
        tail: list[tuple[int, Record]] = []
        start, span = size, _END_BYTES
        while start > head_size and span <= _MOST_BYTES and not _tells(tail):
            start = max(size - span, 0)
            lines = os.pread(descriptor, size - start, start).splitlines(keepends=True)
            tail = [one for one in _decoded(lines) if one[0] > last_of_head]
            span *= 8
        newest = (tail or head)[-1:]
        ended = bool(newest) and not isinstance(newest[0][1], Row) and newest[0][1].kind == "close"
        # Whoever has ended is not asked: the question takes the lock for an instant, in which a
        # logger that continues the run would not get it.
        locked = None if ended else is_locked(file)
    return Ends(size, head, tail, start <= head_size, locked)


def is_locked(file: BinaryIO) -> bool | None:
    """Whether a logger has a journal open; None if its file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _decoded(lines: list[bytes]) -> list[tuple[int, Record]]:
    both = (decode(line) for line in lines)
    return [one for one in both if one is not None]


def _tells(tail: list[tuple[int, Record]]) -> bool:
    """Whether there is a row among the last records."""
    return any(isinstance(record, Row) for _, record in tail)
