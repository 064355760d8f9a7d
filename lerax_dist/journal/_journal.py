"""The writer of a journal, and the cursors by which the backends of the same process follow it."""

import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from lerax_dist._failures import Failures
from lerax_dist.journal._reader import read_last
from lerax_dist.journal._record import JournalFormatError, Record, Row, decode, encode
from lerax_dist.journal._run_file import last_opened, restore_identity, unused_path

# Size of the lines whose records are kept in memory; a cursor further behind reads the file. A
# record takes several times as much as its line.
_RECENT_BYTES = 1 << 20
# Size of the lines that are buffered while the file cannot be written (disk full, quota, ...).
_UNWRITTEN_BYTES = 256 << 20
# Lines of a write.
_MAX_LINES = 1000
# Those that this process has open.
_open: "weakref.WeakSet[Journal]" = weakref.WeakSet()


class JournalInUse(RuntimeError):
    """Another logger is writing this run."""


@final
@dataclass(slots=True, eq=False)
class _Kept:
    """A record in memory."""

    number: int
    record: Record
    line: bytes  # its line in the file; empty once that is written
    size: int  # size of the line
    end: int | None = None  # byte offset after the line; `None` until that is written


@final
@dataclass(slots=True, eq=False)
class Cursor:
    """How far one thread has read."""

    number: int  # number of the next record to read
    offset: int  # a byte offset at or before its line


@final
class Journal:
    """An append-only file of records. One thread appends, any number read.

    Attributes:
        path: the file.
        last: the last whole record that the file held when it was opened; `None` if none.
    """

    def __init__(self, path: Path, failures: Failures) -> None:
        """Open a journal, or make one. What it holds already stays as it is.

        Args:
            path: the file.
            failures: where to record what fails later.

        Raises:
            JournalInUse: another logger has it open.
            JournalFormatError: it is in a newer format.
            OSError: the file cannot be opened.
        """
        self.path = path
        self._failures = failures
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        _open.add(self)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._close()
            raise JournalInUse(_in_use(path)) from error
        except OSError:
            # Some network file systems know no locks; the run is as safe there as it can be.
            pass
        self._size = os.fstat(self._fd).st_size
        try:
            # Whether the file ends within a line is `_torn`, from here on.
            self._next, self._torn, self.last = read_last(self._fd, self._size)
        except JournalFormatError as error:
            self._close()
            raise JournalFormatError(f"{path}: {error}") from None
        self._start = (self._next, self._size)
        self._changed = threading.Condition()
        self._recent: deque[_Kept] = deque()
        self._recent_bytes = 0
        self._unwritten: deque[_Kept] = deque()
        self._unwritten_bytes = 0
        self._dropped = 0

    @property
    def end(self) -> int:
        """Number of the record after the last."""
        return self._next

    @property
    def readable(self) -> Path:
        """A path by which this process can read the file, also if it was moved or has no name."""
        link = Path(f"/proc/self/fd/{self._fd}")
        return link if link.exists() else self.path

    @property
    def folder(self) -> Path:
        """The folder of the file, also if it was moved."""
        path = self.readable.resolve()
        return (path if path.exists() else self.path).parent

    def cursor(self) -> Cursor:
        """A cursor at the first record that this object appends."""
        return Cursor(*self._start)

    def append(self, records: Sequence[Record]) -> None:
        """Append records, hand them to the system, and wake the readers.

        A file that cannot be written costs no record: readers get them from memory, and they are
        written as soon as it can be written again.
        """
        fresh = self._encoded(records)
        size = sum(kept.size for kept in fresh)
        self._unwritten.extend(fresh)
        self._unwritten_bytes += size
        self._write()
        with self._changed:
            self._recent.extend(fresh)
            self._recent_bytes += size
            # What is not written yet cannot be read from the file.
            written = self._unwritten[0].number if self._unwritten else self._next + len(fresh)
            while self._recent_bytes > _RECENT_BYTES and self._recent[0].number < written:
                self._recent_bytes -= self._recent.popleft().size
            self._next += len(fresh)
            self._changed.notify_all()

    def _encoded(self, records: Sequence[Record]) -> list[_Kept]:
        fresh: list[_Kept] = []
        for record in records:
            number = self._next + len(fresh)
            try:
                line = encode(record, number)
                fresh.append(_Kept(number, record, line, len(line)))
            except Exception as error:
                # One that JSON cannot hold must not cost its neighbors. Its content is not in the
                # message: the text of an integer of 5,000 digits raises, too.
                what = "a row" if isinstance(record, Row) else f"the event {record.kind!r}"
                self._failures.record(
                    "journal", f"cannot encode {what} ({error!r}); it is skipped", error
                )
        return fresh

    def _write(self) -> None:
        """Write the buffered lines, whole ones only: one that was cut off is written again."""
        error: OSError | None = None
        while self._unwritten and error is None:
            batch = [kept.line for kept in itertools.islice(self._unwritten, _MAX_LINES)]
            # A line that was cut off, by this run or one before it, must not swallow the next.
            prefix = b"\n" if self._torn else b""
            whole = self._size + len(prefix)
            done, error = _write_all(self._fd, prefix + b"".join(batch))
            self._size += done
            while self._unwritten and whole + self._unwritten[0].size <= self._size:
                kept = self._unwritten.popleft()
                self._unwritten_bytes -= kept.size
                whole += kept.size
                kept.end, kept.line = whole, b""
            if done:
                # Bytes after the last whole line are the start of one that was cut off.
                self._torn = whole != self._size
        if error is not None:
            self._record_failure(error)

    def _record_failure(self, error: OSError) -> None:
        self._failures.record(
            "journal",
            f"failed to write {self.path} ({error.strerror}). Rows are buffered in memory and "
            "written once the file can be written again",
            error,
        )
        while self._unwritten_bytes > _UNWRITTEN_BYTES:
            self._unwritten_bytes -= self._unwritten.popleft().size
            self._dropped += 1
        if self._dropped:
            self._failures.record(
                "journal",
                f"{self.path} could not be written until the buffer of "
                f"{_UNWRITTEN_BYTES >> 20} MiB was full: its oldest rows were dropped. Backends "
                "that kept up have them",
            )

    def read(self, cursor: Cursor, most: int) -> list[Record]:
        """The next records, at most `most`; advances the cursor. Empty at the end."""
        with self._changed:
            if cursor.number >= self._next:
                return []
            if self._recent and cursor.number >= self._recent[0].number:
                start = cursor.number - self._recent[0].number
                stop = min(start + most, len(self._recent))
                entries = [self._recent[place] for place in range(start, stop)]
                cursor.number = entries[-1].number + 1
                cursor.offset = entries[-1].end or cursor.offset
                return [kept.record for kept in entries]
        return self._read_file(cursor, most)

    def _read_file(self, cursor: Cursor, most: int) -> list[Record]:
        records: list[Record] = []
        with self.readable.open("rb") as file:
            file.seek(cursor.offset)
            while len(records) < most:
                line = file.readline()
                if not line.endswith(b"\n"):
                    if not records:
                        self._skip_dropped(cursor, torn=bool(line))
                    break
                cursor.offset += len(line)
                decoded = decode(line)
                if decoded is not None and decoded[0] >= cursor.number:
                    cursor.number = decoded[0] + 1
                    records.append(decoded[1])
        return records

    def _skip_dropped(self, cursor: Cursor, torn: bool) -> None:
        """At the end of the file, skip what is neither there nor in memory."""
        with self._changed:
            # Unless the file has grown since: then the reader continues there.
            if torn or os.fstat(self._fd).st_size <= cursor.offset:
                oldest = self._recent[0].number if self._recent else self._next
                cursor.number = max(cursor.number, oldest)

    def wait(self, cursor: Cursor, unless: threading.Event) -> None:
        """Wait until there is a record at the cursor, or until `unless` is set (then `wake`)."""
        with self._changed:
            while cursor.number >= self._next and not unless.is_set():
                self._changed.wait()

    def wake(self) -> None:
        """Wake every reader that waits, to check again what it waits for."""
        with self._changed:
            self._changed.notify_all()

    def sync(self) -> None:
        """Put the file on the disk. For the appending thread."""
        self._write()
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._failures.record(
                "journal", f"failed to sync {self.path} ({error.strerror})", error
            )

    def restore_if_lost(self) -> None:
        """Notice that the file was removed or moved away. For the appending thread; never raises.

        The rows of one that was moved go on where it is. One that was removed is made again from
        the open file, beside what is in its place by now.
        """
        lost = self.path
        try:
            mine = os.fstat(self._fd)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if os.path.samestat(mine, os.stat(lost)):
                    return
            # A network file system gives a file that was removed another name instead.
            name = os.readlink(f"/proc/self/fd/{self._fd}")
            if mine.st_nlink and not os.path.basename(name).startswith(".nfs"):
                what = (
                    f"moved while the run is written; rows go on to {name}. Write files of "
                    "backends again from there, with `lerax-dist replay`"
                )
            else:
                self._restore()
                what = (
                    f"removed while the run is written. {self.path} has all its rows so far. Files "
                    "of backends beside it are gone: write them again with `lerax-dist replay "
                    f"{self.path} --to BACKEND --force`"
                )
        except OSError as error:
            what = (
                f"removed while the run is written. It cannot be made again ({error!r}): its rows "
                "are lost when this process ends, unless the folder can be written to before"
            )
        self._failures.record("journal", f"{lost} was {what}")

    def _restore(self) -> None:
        """Copy the open file to its path, or beside what is there, and go on in the copy."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = unused_path(self.path)
        try:
            with self.readable.open("rb") as lost, path.open("xb") as copy:
                shutil.copyfileobj(lost, copy)
                copy.flush()
                os.fsync(copy.fileno())
                with contextlib.suppress(OSError):
                    fcntl.flock(copy.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The same descriptor: what knows it, as a fork must, need not learn another.
                os.dup2(copy.fileno(), self._fd, inheritable=False)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self.path = path
        restore_identity(path)

    def close(self) -> None:
        """Put the file on the disk and close it. The appending thread must have ended. A second
        call does nothing."""
        if self._fd < 0:
            return
        self.restore_if_lost()
        self.sync()
        missing = self._dropped + len(self._unwritten)
        if missing:
            self._failures.record(
                "journal",
                f"{missing:,} rows are missing from {self.path}, which could not be written: see "
                "the error above. Backends that kept up have them. Free space or fix the folder "
                "before the next run",
            )
        # A forked process that holds the file, too, would otherwise keep the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._close()

    def _close(self) -> None:
        _open.discard(self)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __del__(self) -> None:
        # Ctrl-C may have cut off what would have closed it, and the lock would stay.
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    @staticmethod
    def leave_to_parent() -> None:
        """After a fork, in the child: close all files, whose locks would outlive the parent."""
        for journal in _open:
            with contextlib.suppress(OSError):
                os.close(journal._fd)
            journal._fd = -1
        _open.clear()


os.register_at_fork(after_in_child=Journal.leave_to_parent)


def _in_use(path: Path) -> str:
    """Who writes a journal, and what to do."""
    opened = last_opened(path)
    owner, fix = "", "Close that logger first"
    if opened is not None:
        host, pid = opened.body.get("host"), opened.body.get("pid")
        since = datetime.fromtimestamp(opened.time, UTC)
        owner = f", process {pid} on {host} since {since:%Y-%m-%d %H:%M:%S} UTC"
        if (host, pid) == (socket.gethostname(), os.getpid()):
            owner = f"{owner}, which is this process"
            fix = (
                "Close that logger first, by `lerax_dist.close_runs()` if it is lost (a function "
                "or a notebook cell has raised)"
            )
    return (
        f"`name` is the run of another logger that is still open: {path.parent}{owner}. {fix}, "
        "or pass another `name`."
    )


def _write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    done = 0
    try:
        while done < len(data):
            done += os.write(fd, memoryview(data)[done:])
    except OSError as error:
        return done, error
    return done, None
