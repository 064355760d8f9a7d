"""Reads journals, and never writes or locks them: whole, or as they grow."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from lerax_dist.cli._standing import MARK, Standing
from lerax_dist.journal._record import Record, Row, decode

JOURNAL = "journal.jsonl"

_CHUNK_BYTES = 1 << 20
_LONGEST_BYTES = 1 << 26
_HEAD_BYTES = 256


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
class JournalReader:
    """One reader of a journal: each record once, in order, and only rows that stand.

    What is read once is not read again, however often it is asked for more. Before records are
    handed out, all of the file that there is by then is searched for `resume` records, so a row
    that a later incarnation has superseded is left out. One that was handed out before that record
    was written is its user's to drop: the record itself is handed out like any other.

    Attributes:
        path: the file, which need not be there yet.
        damage: what is wrong with it, as far as it was read.
        superseded: rows that were left out.
        offset: bytes that were read.
        size: bytes that there were at the last look.
        age: grows when another file has come to be there, which is read from its start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.age = -1
        self._start_anew()

    @property
    def behind(self) -> bool:
        """Whether there were whole lines left at the last look."""
        return self.offset < self.size and not self.damage.torn

    def records(self, stop: int | None = None) -> Iterator[tuple[int, Record]]:
        """Number and record of each line that there is by now, and none that comes meanwhile.

        Args:
            stop: bytes of the file to look at; `None` for all that there are.

        Raises:
            OSError: the file cannot be read.
        """
        yield from self.read(stop=stop)
        stop = self.size if stop is None else min(stop, self.size)
        while self.behind and self.offset < stop:
            before = self.offset
            yield from self.read(stop=stop)
            if self.offset == before:
                return

    def read(
        self, most_bytes: int = _CHUNK_BYTES, stop: int | None = None
    ) -> list[tuple[int, Record]]:
        """Records that came since the last call, of about so many bytes at most.

        A file that is not there holds none; one that has replaced another is read from its start.

        Args:
            most_bytes: how many to read at once, see `behind`.
            stop: byte of the file to read up to; `None` for its end.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            # Opened anew each time: a network file system looks again then, also for another file.
            with self.path.open("rb") as file:
                self._look(file.fileno())
                if self.size == self._done:
                    return []
                self._search(file.fileno())
                lines = self._lines(file.fileno(), most_bytes, stop)
        except (FileNotFoundError, NotADirectoryError):
            # Not there yet, or moved away for a moment: what was read stays read.
            self.size = self.offset
            return []
        return self._records(lines)

    def _records(self, lines: list[bytes]) -> list[tuple[int, Record]]:
        records: list[tuple[int, Record]] = []
        for line in lines:
            decoded = decode(line)
            if decoded is None:
                self.damage.lines += 1
                continue
            number, record = decoded
            if number < self._following:
                continue
            self.damage.missing += number - self._following
            self._following = number + 1
            if self._standing.hides(number, record):
                self.superseded += isinstance(record, Row)
            else:
                records.append(decoded)
        return records

    def _start_anew(self) -> None:
        self.age += 1
        self.damage = Damage()
        self.superseded = 0
        self.offset = 0
        self.size = 0
        self._place = (0, 0)
        self._head = b""
        self._following = 0
        self._searched = 0
        # The size up to which all was read: a torn line is looked at again when there is more.
        self._done = 0
        self._standing = Standing()

    def _look(self, descriptor: int) -> None:
        """Find out whether it is the same file as before, and how long it is by now."""
        about = os.fstat(descriptor)
        place = (about.st_dev, about.st_ino)
        head = os.pread(descriptor, len(self._head), 0)
        if self._place != place or about.st_size < self.offset or head != self._head:
            self._start_anew()
        self._place, self.size = place, about.st_size
        if len(self._head) < _HEAD_BYTES:
            # Of two files with the same beginning, one is a copy of the other.
            self._head = os.pread(descriptor, min(_HEAD_BYTES, self.size), 0)

    def _search(self, descriptor: int) -> None:
        """Learn of all that was superseded by now."""
        while self._searched < self.size:
            data = os.pread(
                descriptor, min(4 * _CHUNK_BYTES, self.size - self._searched), self._searched
            )
            whole = data.rfind(b"\n") + 1
            if not data:
                return
            if not whole:
                if self._searched + len(data) >= self.size:
                    return  # the last line is not whole yet
                whole = len(data)  # no `resume` record is that long
            if MARK in data:
                for line in io.BytesIO(data[:whole]).readlines():
                    self._standing.learn(line)
            self._searched += whole

    def _lines(self, descriptor: int, most_bytes: int, stop: int | None) -> list[bytes]:
        """Whole lines that follow; a line that has no end is not read."""
        end = self.size if stop is None else min(stop, self.size)
        span = most_bytes
        while True:
            data = os.pread(descriptor, max(0, min(span, end - self.offset)), self.offset)
            whole = data.rfind(b"\n") + 1
            at_end = self.offset + len(data) >= end or not data
            if not whole and len(data) >= _LONGEST_BYTES:
                whole = len(data)  # no record is that long: it is damaged
            if whole or at_end:
                break
            span *= 4
        self.offset += whole
        self.damage.torn = at_end and whole < len(data)
        if at_end and end == self.size:
            self._done = end
        return io.BytesIO(data[:whole]).readlines()
