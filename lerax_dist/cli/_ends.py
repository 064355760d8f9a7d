"""Reads the two ends of a journal, at a cost that does not grow with it."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lerax_dist.cli._locks import is_locked
from lerax_dist.cli._standing import Standing
from lerax_dist.journal._record import Record, Row, decode

_END_BYTES = 1 << 16
# A tail in which no record is whole is looked for no further back than this.
_MOST_BYTES = 1 << 24


@final
@dataclass(frozen=True)
class Ends:
    """The two ends of a journal. Rows that were superseded are left out.

    Attributes:
        size: bytes of the file.
        head: first records, with their numbers.
        tail: last records; not those of the head.
        whole: whether there is nothing in between.
        locked: whether a logger has it open; `None` if nobody can tell, or if it was not asked, as
            the run has ended.
    """

    size: int
    head: list[tuple[int, Record]] = field(default_factory=list)
    tail: list[tuple[int, Record]] = field(default_factory=list)
    whole: bool = True
    locked: bool | None = None


def read_ends(path: Path) -> Ends:
    """The first and the last records of a journal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        head_size = min(_END_BYTES, size)
        head = _decoded(os.pread(descriptor, head_size, 0))
        last_of_head = head[-1][0] if head else -1
        tail: list[tuple[int, Record]] = []
        start, span = size, _END_BYTES
        while start > head_size and span <= _MOST_BYTES and not _tells(tail):
            start = max(size - span, 0)
            decoded = _decoded(os.pread(descriptor, size - start, start))
            tail = [one for one in decoded if one[0] > last_of_head]
            span *= 8
        newest = (tail or head)[-1:]
        ended = bool(newest) and not isinstance(newest[0][1], Row) and newest[0][1].kind == "close"
        locked = None if ended else is_locked(file)
    standing = Standing()
    for number, record in [*head, *tail]:
        standing.learn_record(number, record)
    return Ends(
        size,
        [one for one in head if not standing.hides(*one)],
        [one for one in tail if not standing.hides(*one)],
        start <= head_size,
        locked,
    )


def _decoded(data: bytes) -> list[tuple[int, Record]]:
    both = (decode(line) for line in data.splitlines(keepends=True))
    return [one for one in both if one is not None]


def _tells(tail: list[tuple[int, Record]]) -> bool:
    """Whether there is a row among the last records."""
    return any(isinstance(record, Row) for _, record in tail)
