"""Appends whole lines to a file that may be cut short by a crash or a full disk."""

import os
from pathlib import Path
from typing import final


@final
class LineAppender:
    """A file to which lines are appended, each whole or not at all.

    A line is with the operating system when `append` returns. If writing one fails half way (the
    disk is full), the half is taken back before the next, so that a caller may try again. Half a
    line that a crash has left at the end of the file is moved to `<path>.torn` when it is opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+", buffering=0)
        self._size = _whole_lines(self._file.fileno())
        torn = os.pread(self._file.fileno(), 1 << 30, self._size)
        if torn:
            with path.with_name(path.name + ".torn").open("ab") as beside:
                beside.write(torn + b"\n")
            self._file.truncate(self._size)
        self._clean = True

    def append(self, lines: str) -> None:
        """Append a line, or several: all or none.

        Args:
            lines: their text, without the last line feed.
        """
        if not self._clean:
            self._file.truncate(self._size)
        rest = memoryview((lines + "\n").encode())
        length = len(rest)
        self._clean = False
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += length
        self._clean = True

    def close(self) -> None:
        if not self._clean and not self._file.closed:
            self._file.truncate(self._size)
        self._file.close()


def _whole_lines(descriptor: int) -> int:
    """Size of the file up to and with its last line feed."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65536)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
