"""Whether the writer of a run is alive, as seen from any host: for display only.

The writer touches `run.json` every 10 s. A reader that watches compares what it sees with its own
monotonic clock, so clocks of hosts may differ; one that looks once compares the time of the file
with its own time. The right to append never comes from here: it comes from the journal's lock.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

RUN_FILE = "run.json"
# Seconds between two heartbeats.
HEARTBEAT_INTERVAL = 10.0
# Seconds without a sign of life after which a writer counts as dead: several heartbeats, and the
# time for which a network file system may show an old state.
_TIMEOUT = 60.0


@final
class Heartbeat:
    """The sign of life of a run that this process writes.

    Args:
        directory: directory of the run, with its `run.json`.
        clock: monotonic time in seconds.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = directory / RUN_FILE
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Give a sign of life if the last one is 10 s ago. Cheap, to be called often; never raises.

        For one thread.
        """
        now = self._clock()
        if now - self._last >= HEARTBEAT_INTERVAL:
            self._last = now
            # It is for display only, and some file systems know no times.
            with contextlib.suppress(OSError):
                os.utime(self._path)


@final
class Liveness:
    """Whether a run's writer gives signs of life: heartbeats, or a journal that grows.

    Args:
        journal: the journal of the run.
        clock: monotonic time in seconds.
        wall_clock: time in seconds since the epoch.
    """

    def __init__(
        self,
        journal: Path,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._paths = (journal, journal.parent / RUN_FILE)
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: list[tuple[int, int]] | None = None
        self._changed = 0.0

    def is_alive(self) -> bool:
        """Look again. A writer that was killed counts as alive for up to 60 s."""
        seen = [_size_and_time(path) for path in self._paths]
        now = self._clock()
        if self._seen is None:
            # The one moment at which the clocks of two hosts are compared.
            newest = max(time for _, time in seen) / 1e9
            self._changed = now - max(self._wall_clock() - newest, 0.0)
        elif seen != self._seen:
            self._changed = now
        self._seen = seen
        return now - self._changed < _TIMEOUT


def _size_and_time(path: Path) -> tuple[int, int]:
    """Size and time of change in nanoseconds; zeros if there is no such file."""
    try:
        # Opened: a network file system then asks the server, and does not answer from memory.
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            return about.st_size, about.st_mtime_ns
    except OSError:
        return 0, 0
