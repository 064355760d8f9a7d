"""A file of TensorBoard's events, to which records are added whole or not at all."""

import contextlib
import itertools
import os
import socket
import time
from pathlib import Path
from typing import final

from lerax_dist.backends._events import as_records, version_event

_FILE_NUMBERS = itertools.count()


@final
class EventFile:
    """A fresh event file of a run.

    Records are with the operating system when `append` returns. If writing some fails half way
    (the disk is full), the file is given up: it ends with its last whole record, and one without
    any is taken away. Whoever tries again does so with another file, which TensorBoard reads next:
    a reader may hold the half of a record, and gives up a file at the first that is broken.

    Args:
        run_dir: folder of the run.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        # Readers take files in the order of their names, which tensorboardX makes of whole second
        # and host; so the part that makes it unique has to sort by time.
        now = time.time_ns()
        unique = f"{now:020d}.{os.getpid()}.{next(_FILE_NUMBERS)}"
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{unique}"
        self._path = run_dir / name
        self._file = self._path.open("xb", buffering=0)
        version = as_records([version_event(now / 1e9)])
        self._bare, self._size = len(version), 0
        self.append(version)

    def append(self, records: bytes) -> None:
        """Add records, all of them or none.

        Args:
            records: one after the other.

        Raises:
            OSError: they cannot be written; the file is closed.
        """
        rest = memoryview(records)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                if self._size > self._bare:
                    self._file.truncate(self._size)
                else:
                    self._path.unlink()
            with contextlib.suppress(OSError):
                self._file.close()
            raise
        self._size += len(records)

    def close(self) -> None:
        """Wait for the disk, and close.

        Raises:
            OSError: something is not on the disk.
        """
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
