"""Appends to a file that a crash or a full disk may cut short."""

import contextlib
import os
from pathlib import Path
from typing import Self, final


@final
class FileRemoved(FileNotFoundError):
    """A file was removed or moved while it was written."""


@final
class Appender:
    """A file to which data are appended, each piece whole or not at all.

    A piece is with the operating system when `append` returns, so that it outlives the process. If
    writing one fails half way (the disk is full), the half is removed: at once if possible, else
    before the next piece, so that a caller may retry. A file that does not exist is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab+", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._is_whole = True

    @classmethod
    def for_lines(cls, path: Path) -> Self:
        """An appender for a file of lines, which may exist.

        Half a line that a crash has left at its end is moved to `<path>.torn`, since the next line
        would be damaged, too.
        """
        appender = cls(path)
        whole = _size_of_whole_lines(appender._file.fileno())
        torn = os.pread(appender._file.fileno(), appender._size - whole, whole)
        if torn:
            with path.with_name(path.name + ".torn").open("ab") as beside:
                beside.write(torn + b"\n")
            appender._size = whole
            appender._remove_half()
        return appender

    def append(self, data: bytes) -> None:
        """Append a piece; after an `OSError`, nothing of it was appended.

        Raises:
            FileRemoved: the file is not at its path any more; open another one.
            OSError: it cannot be written.
        """
        self._check_place()
        if not self._is_whole:
            self._remove_half()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self._is_whole = False
            with contextlib.suppress(OSError):
                self._remove_half()
            raise
        self._size += len(data)

    def _check_place(self) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path)):
                return
        raise FileRemoved(
            f"{self.path} was removed or moved while the run is written: it lacks rows, and later "
            "ones go to a new file. Write it again when the run is over, with `lerax-dist replay`"
        )

    def close(self) -> None:
        """Wait for the disk and close the file. A second call does nothing."""
        if self._file.closed:
            return
        try:
            if not self._is_whole:
                self._remove_half()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _remove_half(self) -> None:
        self._file.truncate(self._size)
        self._is_whole = True


def _size_of_whole_lines(descriptor: int) -> int:
    """Size of a file up to its last line feed, which is included."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65536)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
