"""The queue between the training and the writer: bounded in bytes, lossless."""

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, final

from lerax_dist._failures import Failures

# Some 100,000 rows of 64 metrics.
BOUND = 64 << 20
# How long a row waits for the writer before it is taken in all the same.
_PATIENCE = 10.0
_MOST_AT_ONCE = 1024
# How long rows are gathered before the thread that takes them wakes again, in seconds.
PAUSE = 0.2


@final
class RowQueue:
    """What waits for the writer.

    A row that would make it too large waits outside: the training is slowed down to the pace of the
    writer, and nothing is lost. If the writer does not move for 10 seconds (a file system that
    hangs), rows come in nevertheless, so that a logger never stops a training.

    The first row after a while is taken at once. Then rows are gathered for a moment: a thread that
    woke for each of them would take the interpreter from the training just as often.

    Args:
        failures: where to keep that this has happened.
        bound: how many bytes of rows may wait.
        pause: how long rows are gathered, in seconds; so much later they are taken at the latest.
    """

    def __init__(self, failures: Failures, bound: int = BOUND, pause: float = PAUSE) -> None:
        # `put` of this one may be called in a signal handler, whatever the thread was doing.
        self._items: SimpleQueue[tuple[Any, int]] = SimpleQueue()
        # A mark for each thing that must not wait until the pause is over; it may be a signal's.
        self._urgent: SimpleQueue[None] = SimpleQueue()
        self._pause = pause
        self._paused_until = 0.0
        self._failures = failures
        self._bound = bound
        # Held for a moment by whoever logs; in C, which a condition's own methods are not. A signal
        # handler that logs may find it held by its own thread.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._bytes = 0
        self._stuck = False
        self._calls = 0
        self._seconds = 0.0

    def put(self, item: Any) -> None:
        """Add something that waits neither for room nor for company; takes no lock."""
        self._items.put((item, 0))
        self._urgent.put(None)

    def put_row(self, row: Any, size: int, begin: float) -> None:
        """Add a row.

        Args:
            row: what to add.
            size: about how many bytes it takes, at least 1.
            begin: when whoever logs it began to, by `time.perf_counter`.
        """
        with self._lock:
            full = self._bytes + size > self._bound and not self._stuck
            if not full:
                self._bytes += size
        if full:
            self._wait(size)
        self._items.put((row, size))
        self._calls += 1
        self._seconds += time.perf_counter() - begin

    def _wait(self, size: int) -> None:
        """Make room for a row that does not fit, if it is not the only one."""
        # Without the lock: what shows a warning may be the user's, and may log.
        if not self._fits(size):
            self._failures.record(
                "queue",
                f"{self._bytes / 2**20:.3g} MiB of rows wait to be written; the training is slowed "
                "down to the pace of the writer. Log less often (`log_interval`), or to a faster "
                "disk.",
                kind="full",
            )
            self._urgent.put(None)
        with self._room:
            stuck = not self._room.wait_for(lambda: self._stuck or self._fits(size), _PATIENCE)
            self._stuck |= stuck
            self._bytes += size
        if stuck:
            self._failures.record(
                "queue", "the writer does not move; rows wait in memory beyond the bound"
            )

    def _fits(self, size: int) -> bool:
        return self._bytes + size <= self._bound or self._bytes == 0

    def take(self, timeout: float | None) -> list[tuple[Any, int]]:
        """What is there by now, with sizes; waits for at least one thing, at most `timeout`."""
        until = None if timeout is None else time.monotonic() + timeout
        self._gather()
        items = []
        try:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            items.append(self._items.get(timeout=left))
            while len(items) < _MOST_AT_ONCE:
                items.append(self._items.get_nowait())
        except Empty:
            pass
        # A queue that is not empty yet waits for nothing.
        behind = len(items) == _MOST_AT_ONCE
        self._paused_until = 0.0 if behind else time.monotonic() + self._pause
        return items

    def _gather(self) -> None:
        """Let rows come together until the pause is over, or something is urgent."""
        try:
            left = self._paused_until - time.monotonic()
            if left > 0:
                self._urgent.get(timeout=left)
            while True:
                self._urgent.get_nowait()
        except Empty:
            pass

    def done(self, size: int) -> None:
        """Make room: rows of `size` bytes in all wait no longer."""
        if size:
            with self._room:
                self._bytes -= size
                self._stuck = False
                self._room.notify_all()

    def gauges(self) -> tuple[int, float, int]:
        """How many rows were added and the seconds that took in all, and how many items wait."""
        return self._calls, self._seconds, self._items.qsize()
