"""The queue between the training and the worker, and what enters it. Bounded in bytes, lossless.

What may be called where: `put` in a signal handler, whatever the interrupted code was doing, since
it uses `SimpleQueue.put` only, which is reentrant; `put_row` on any thread; `take` and `done` on
the worker's.
"""

import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import HostMetrics, Schema

# Bytes of rows that may be queued: some 100,000 rows of 64 metrics.
BOUND = 64 << 20
# How long a row waits for room before it is queued all the same, in seconds.
_ROOM_TIMEOUT = 10.0
_MAX_ITEMS = 1024
# How long rows are batched before the worker wakes again, in seconds.
PAUSE = 0.2


class Packet(NamedTuple):
    """One part of a message with rows from the devices, as it arrived.

    Attributes:
        schema: what the vectors in the message mean.
        part: which part this is, from 0.
        parts: how many the message has.
        payload: number of the message | its part of the body, int32.
        stride: distance between the iterations that are logged.
        time: when it arrived, in seconds since the epoch.
        clock: when it arrived, by `time.perf_counter`.
    """

    schema: Schema
    part: int
    parts: int
    payload: np.ndarray
    stride: int
    time: float
    clock: float


class HostRow(NamedTuple):
    """A row from a plain loop; `time` is in seconds since the epoch."""

    step: int
    metrics: HostMetrics
    time: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class TrainingStart:
    """A training starts.

    Attributes:
        stride: distance between the iterations that are logged.
        iteration: iterations done before.
        total_timesteps: global steps that it takes; 0 if unknown.
        total_iterations: iterations that it takes; 0 if unknown.
        hparams: hyperparameters to log, if there are any.
        time: when, in seconds since the epoch.
        clock: when, by `time.perf_counter`.
    """

    stride: int
    iteration: int
    total_timesteps: int
    total_iterations: int
    hparams: dict[str, Any]
    time: float
    clock: float


@final
class RowQueue:
    """What the worker has not taken yet.

    A row that would make it too large waits outside: the training slows down to the pace of the
    worker, and nothing is lost. If the worker does not move for 10 seconds (a file system that
    hangs), rows are queued nevertheless, so that a logger never stops a training.

    The first row after a while is taken at once. Then rows are batched for `pause` seconds: a
    thread that woke for each of them would take the interpreter from the training just as often.
    """

    def __init__(self, failures: Failures, bound: int = BOUND, pause: float = PAUSE) -> None:
        self._items: SimpleQueue[tuple[Any, int]] = SimpleQueue()
        # One for each item that ends the pause.
        self._urgent: SimpleQueue[None] = SimpleQueue()
        self._pause = pause
        self._paused_until = 0.0
        self._failures = failures
        self._bound = bound
        # Reentrant, since a signal handler that logs may interrupt its own thread inside. Used as a
        # plain lock on the fast path, since a condition's own methods are slower.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._bytes = 0
        self._is_stalled = False
        self._calls = 0
        self._seconds = 0.0

    def put(self, item: Any) -> None:
        """Add something that waits neither for room nor for the pause."""
        self._items.put((item, 0))
        self._urgent.put(None)

    def put_row(self, row: Any, size: int, begin: float) -> None:
        """Add a row.

        Args:
            row: what to add.
            size: about how many bytes it takes, at least 1.
            begin: when the call that logs it began, by `time.perf_counter`.
        """
        with self._lock:
            is_full = self._bytes + size > self._bound and not self._is_stalled
            if not is_full:
                self._bytes += size
        if is_full:
            self._wait(size)
        self._items.put((row, size))
        # Outside the lock: two threads that race lose a count of `lerax_dist/callback_ms`, no row.
        self._calls += 1
        self._seconds += time.perf_counter() - begin

    def _wait(self, size: int) -> None:
        """Wait for room for a row that does not fit, unless it is the only one."""
        # Without the lock: the code that shows a warning may be the user's, and may log.
        if not self._fits(size):
            self._failures.record(
                "queue",
                f"{self._bytes / 2**20:.3g} MiB of rows are queued; the training now waits for the "
                "writer. Log less often (`log_interval`), or to a faster disk.",
                kind="full",
            )
            self._urgent.put(None)
        with self._room:
            has_room = self._room.wait_for(
                lambda: self._is_stalled or self._fits(size), _ROOM_TIMEOUT
            )
            self._is_stalled |= not has_room
            self._bytes += size
        if not has_room:
            self._failures.record(
                "queue", "the writer thread is stalled; rows are buffered beyond the memory limit"
            )

    def _fits(self, size: int) -> bool:
        return self._bytes + size <= self._bound or self._bytes == 0

    def take(self, timeout: float | None) -> list[tuple[Any, int]]:
        """What is queued, with sizes; waits for at least one item, at most `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        self._wait_for_pause()
        items = []
        try:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            items.append(self._items.get(timeout=left))
            while len(items) < _MAX_ITEMS:
                items.append(self._items.get_nowait())
        except Empty:
            pass
        # With more in the queue there is no pause, and none is needed after nothing.
        has_pause = 0 < len(items) < _MAX_ITEMS
        self._paused_until = time.monotonic() + self._pause if has_pause else 0.0
        return items

    def _wait_for_pause(self) -> None:
        """Wait until the pause is over, or something urgent is put."""
        try:
            left = self._paused_until - time.monotonic()
            if left > 0:
                self._urgent.get(timeout=left)
            while True:
                self._urgent.get_nowait()
        except Empty:
            pass

    def done(self, size: int) -> None:
        """Rows of `size` bytes in all are written: make room."""
        if size:
            with self._room:
                self._bytes -= size
                self._is_stalled = False
                self._room.notify_all()

    def usage(self) -> tuple[int, float, int]:
        """How many rows were added, the seconds that took in all, and how many items are queued."""
        return self._calls, self._seconds, self._items.qsize()
