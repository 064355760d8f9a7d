"""The log of this process: buffered in memory until a run is open, then in a file of that run."""

import contextlib
import logging
import sys
from collections import deque
from pathlib import Path
from typing import NamedTuple, TextIO, final

# Lines that are buffered while no run is open. The first lines say how the process started, so
# lines in the middle are dropped.
_MAX_FIRST, _MAX_LAST = 200, 2000
# Characters of a warning or an error that are sent to process 0.
_MAX_TEXT = 300


class Counts(NamedTuple):
    """How many warnings and errors a process has logged, and the newest error (else warning)."""

    warnings: int = 0
    errors: int = 0
    newest: str = ""

    def plus(self, level: int, text: str) -> "Counts":
        """The counts after one more warning or error with this message."""
        if level >= logging.ERROR:
            return Counts(self.warnings, self.errors + 1, text)
        return Counts(self.warnings + 1, self.errors, self.newest if self.errors else text)


@final
class ProcessLog(logging.Handler):
    """Writes each record to the file of every open run at once; buffers it while none is open.

    `counts` are the warnings and errors since the last run was closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.counts = Counts()
        self._files: dict[Path, TextIO | None] = {}
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_MAX_LAST)
        self._dropped = 0

    def attach(self, path: Path) -> None:
        """Write records to this file from now on, and the buffered lines first.

        The file is created, with its folder, once there is something to write.
        """
        assert self.lock is not None  # `logging.Handler` makes it in `__init__`.
        with self.lock:
            self._files.setdefault(path, None)
            gap = [f"... {self._dropped} lines dropped ..."] if self._dropped else []
            buffered = [*self._first, *gap, *self._last]
            if buffered and self._write(path, "\n".join(buffered)):
                self._first, self._dropped = [], 0
                self._last.clear()

    def detach(self, path: Path) -> None:
        """Close a file, and reset the counts if it was the last one."""
        assert self.lock is not None
        with self.lock:
            self._close_file(path)
            if not self._files:
                self.counts = Counts()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname} {record.name}: {record.getMessage()}"
                self.counts = self.counts.plus(record.levelno, text.splitlines()[0][:_MAX_TEXT])
            for path in list(self._files):
                self._write(path, line)
            if not self._files:
                self._buffer(line)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        for path in list(self._files):
            self.detach(path)
        super().close()

    def _buffer(self, line: str) -> None:
        if len(self._first) < _MAX_FIRST:
            self._first.append(line)
            return
        self._dropped += len(self._last) == _MAX_LAST
        self._last.append(line)

    def _write(self, path: Path, text: str) -> bool:
        """Append to a file; returns whether it worked. A file that fails is disabled."""
        try:
            file = self._files[path]
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                # One write per record, in append mode: a forked process may share the file.
                file = path.open("a", encoding="utf-8", errors="backslashreplace")
                self._files[path] = file
            file.write(text + "\n")
            file.flush()
        except OSError as error:
            # Once, and on the console only: logging it would fail here again.
            self._close_file(path)
            message = f"lerax_dist: failed to write {path} ({error.strerror}); this log is disabled"
            # The console may be a file on the same full disk.
            with contextlib.suppress(OSError):
                print(message, file=sys.stderr)
            return False
        return True

    def _close_file(self, path: Path) -> None:
        file = self._files.pop(path, None)
        # Closing flushes once more, and fails once more if the last write has failed.
        with contextlib.suppress(OSError):
            if file is not None:
                file.close()


# One per process, as `logging` itself is. It receives nothing until `setup_logging` adds it.
process_log = ProcessLog()
