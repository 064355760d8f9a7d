"""Everything that this process logs: in memory until a run is open, then in a file of that run."""

import contextlib
import logging
import sys
from collections import deque
from pathlib import Path
from typing import IO, Any, NamedTuple, final

# Lines kept until a run opens; what comes first says how the process started, so it is the middle
# that goes.
_FIRST, _LAST = 200, 2000


class Counts(NamedTuple):
    """What a process has logged that somebody should look at.

    Attributes:
        warnings: number of warnings.
        errors: number of errors.
        newest: the newest of the gravest.
    """

    warnings: int = 0
    errors: int = 0
    newest: str = ""


def count(counts: Counts, level: int, text: str) -> Counts:
    """The counts after one more record.

    Args:
        counts: those before.
        level: level of the record.
        text: what it says.
    """
    if level >= logging.ERROR:
        return Counts(counts.warnings, counts.errors + 1, text)
    if level >= logging.WARNING:
        return Counts(counts.warnings + 1, counts.errors, counts.newest if counts.errors else text)
    return counts


@final
class ProcessLog(logging.Handler):
    """Writes each record to the file of every open run, at once; keeps it while there is none.

    Attributes:
        counts: warnings and errors since the last run was closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.counts = Counts()
        self._files: dict[Path, IO[str] | None] = {}
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=_LAST)
        self._left_out = 0

    def attach(self, path: Path) -> None:
        """From now on records go to this file, those first that no file has yet.

        Args:
            path: made with its folder when there is something to write.
        """
        with self._guard():
            self._files.setdefault(path, None)
            kept = [*self._first, *self._gap(), *self._last]
            if kept and self._write(path, "\n".join(kept)):
                self._first, self._left_out = [], 0
                self._last.clear()

    def detach(self, path: Path) -> None:
        """Let go of a file."""
        with self._guard():
            self._let_go(path)
            if not self._files:
                self.counts = Counts()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if record.levelno >= logging.WARNING:
                said = f"{record.levelname} {record.name}: {record.getMessage()}"
                self.counts = count(self.counts, record.levelno, said.splitlines()[0][:300])
            for path in list(self._files):
                self._write(path, line)
            if not self._files:
                self._keep(line)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        for path in list(self._files):
            self.detach(path)
        super().close()

    def _guard(self) -> Any:
        assert self.lock is not None  # `logging` makes it with the handler
        return self.lock

    def _keep(self, line: str) -> None:
        if len(self._first) < _FIRST:
            self._first.append(line)
            return
        self._left_out += len(self._last) == _LAST
        self._last.append(line)

    def _gap(self) -> list[str]:
        return [f"... {self._left_out} lines are not kept ..."] if self._left_out else []

    def _write(self, path: Path, text: str) -> bool:
        """Whether the file has it; one that cannot be written is let go of."""
        try:
            file = self._files[path]
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                # A line is one write at the end of the file: a forked process may write there, too.
                file = path.open("a", encoding="utf-8", errors="backslashreplace")
                self._files[path] = file
            file.write(text + "\n")
            file.flush()
        except OSError as error:
            # Once, and on the console only: each further record would come to the same.
            self._let_go(path)
            # The console may be a file on the same disk.
            with contextlib.suppress(OSError):
                print(f"lerax_dist: no log in {path} ({error.strerror})", file=sys.stderr)
            return False
        return True

    def _let_go(self, path: Path) -> None:
        file = self._files.pop(path, None)
        # Of what it could not write it was told, and it says so once more.
        with contextlib.suppress(OSError):
            if file is not None:
                file.close()


process_log = ProcessLog()
"""Of this process; logging itself is one for a process. It hears nothing until it is installed."""
