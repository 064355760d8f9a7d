"""The one thread between the queue and the outlet of a run: takes rows, puts them in order."""

import abc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from lerax_dist._failures import Failures
from lerax_dist.host._clips import ClipRenderer
from lerax_dist.host._closing_wait import ClosingWait
from lerax_dist.host._queue import HostRow, RowQueue, TrainingStart
from lerax_dist.host._rows import Reassembler, group_packets
from lerax_dist.journal import Event


class Ending(NamedTuple):
    """How a run ends.

    Attributes:
        state: `"finished"`, `"failed"` or `"preempted"`.
        deadline: from when on rows do not wait for other processes, by `time.monotonic()`.
    """

    state: str
    deadline: float


@final
@dataclass(eq=False, slots=True)
class FlushMarker:
    """A place in the queue: `reached` is set once everything before it has been written.

    Attributes:
        sync: whether the journal is synced to the disk here.
        urgent: whether it overtakes rows that wait for other processes.
        ending: how the run ends, if the worker ends here.
        reached: set when it is.
        end: number of the next record of the journal, once reached.
        start_step: the step after that of the last row, once reached; `None` if there is none.
    """

    sync: bool = False
    urgent: bool = False
    ending: Ending | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    end: int = 0
    start_step: int | None = None

    def wait(self, deadline: float) -> bool:
        """Wait until it is reached, or until `deadline` by `time.monotonic()`; whether it is."""
        return self.reached.wait(max(deadline - time.monotonic(), 0.0))


class AbstractOutlet(abc.ABC):
    """Where the rows of a process go: the journal, or process 0.

    `write` and `next_write_in` are called by the worker, the other methods by the main thread.

    Attributes:
        clips: renders the clips of this process; `None` if it keeps none.
        late_message: what to report if a marker was not reached in time.
    """

    clips: ClipRenderer | None
    late_message: str

    @abc.abstractmethod
    def start(self, open_timeout: float, on_open: Callable[[], None]) -> None:
        """Start what it needs; waits at most `open_timeout` seconds. See `BackendWorker.start`."""

    def why_unopened(self, backend: Any) -> str | None:
        """Why a backend of this process is not open; `None` if it is, or is not fed from here."""
        return None

    @abc.abstractmethod
    def write(self, items: list[Any], now: float) -> int:
        """Write items, in their order, and set the markers among them. Must not raise.

        Args:
            items: what was taken from the queue, perhaps nothing: partial rows, what belongs to
                other rows (from peers, parts of clips), starts of trainings, events, markers.
            now: `time.monotonic()`.

        Returns:
            Bytes of the queue that are written now.
        """

    @abc.abstractmethod
    def next_write_in(self, now: float) -> float | None:
        """Seconds until `write` must be called even if nothing arrives; `None` if never."""

    @abc.abstractmethod
    def await_sample(self) -> bool:
        """In a run that has just started, wait for what other processes have sent; whether there
        may be something."""

    @abc.abstractmethod
    def flush(self, marker: FlushMarker, deadline: float) -> str | None:
        """Wait until everything before a marker, which was reached, is where it belongs.

        Returns:
            What is missing at the deadline, or `None`.
        """

    def upload(self, deadline: float) -> None:
        """Wait a little, until `deadline` at most, until what was synced is in its bucket."""
        return

    @abc.abstractmethod
    def close(self, written: bool, deadline: float, waiting: ClosingWait) -> None:
        """Release everything.

        Args:
            written: whether the last marker was reached.
            deadline: when to stop waiting, by `time.monotonic()`.
            waiting: waits, and says for what.
        """


@final
class Worker:
    """Moves rows from the queue to the outlet, in their order, until the last marker."""

    def __init__(self, queue: RowQueue, outlet: AbstractOutlet, failures: Failures) -> None:
        self._queue = queue
        self._outlet = outlet
        self._failures = failures
        self._reassembler = Reassembler(failures, queue.done)
        self._last: FlushMarker | None = None
        # Held from the start of the thread on.
        self._claim = threading.Lock()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread, if it does not run. May be called again after Ctrl-C in it."""
        if not self._claim.locked():
            threading.Thread(target=self._run, name="lerax_dist-writer", daemon=True).start()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, at most `timeout` seconds."""
        self._ended.wait(timeout)

    def _run(self) -> None:
        # One that was interrupted while it started may run all the same.
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._move()
        finally:
            self._ended.set()

    def _move(self) -> None:
        while self._last is None or not self._last.reached.is_set():
            items: list[Any] = []
            # No name is bound to what is taken beyond the loop: an array that is freed while the
            # interpreter exits aborts the process.
            for item, size in group_packets(self._queue.take(self._timeout())):
                try:
                    items += self._in_order(item, size)
                except Exception as error:
                    self._failures.record("writer", f"a row could not be read ({error!r})", error)
                    self._queue.done(size)
            item = None
            now = time.monotonic()
            items += self._reassembler.overdue(now)
            self._queue.done(self._outlet.write(items, now))

    def _timeout(self) -> float | None:
        waits = (self._outlet.next_write_in(time.monotonic()), self._reassembler.next_look_in)
        return min((wait for wait in waits if wait is not None), default=None)

    def _in_order(self, item: Any, size: int) -> list[Any]:
        match item:
            case list():
                return [*self._reassembler.add_packets(item)]
            case HostRow():
                return [self._reassembler.add_host_row(item, size)]
            case TrainingStart():
                return [*self._reassembler.restart(item.stride), item]
            case FlushMarker():
                if item is self._last:
                    # Queued again by a close that was interrupted.
                    return []
                if item.ending is not None:
                    self._last = item
            case Event() if item.kind not in ("video", "dropped"):
                pass
            case _:
                # Clips and what peers send are of other rows, and must not hurry the next.
                return [item]
        # Rows that were queued before it must not come after it.
        return [*self._reassembler.release(), item]
