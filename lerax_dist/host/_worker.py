"""The one thread between the queue and the outlet of a run: takes rows, puts them in order."""

import abc
import threading
import time
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._clips import ClipPart
from lerax_dist.host._peers import PeerRows
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._reorder import REORDER_TIMEOUT, PartialRow, Reassembler, group_packets
from lerax_dist.host._sink import HostRow, TrainingStart
from lerax_dist.journal import Event


@final
class FlushMarker:
    """A place in the queue: `reached` is set once everything before it has been written.

    Attributes:
        last: whether the worker ends here.
        sync: whether the journal is synced to the disk here.
        urgent: whether it does not wait for rows that wait for other processes.
        state: how the run ended, if this is the last.
        deadline: from when on rows do not wait for other processes, by `time.monotonic()`; `None`
            for never.
        reached: set when it is.
        end: number of the next record of the journal.
        start_step: the step after that of the last row; `None` if there is no row yet.
    """

    def __init__(
        self,
        *,
        last: bool = False,
        sync: bool = False,
        urgent: bool = False,
        state: str = "finished",
        deadline: float | None = None,
    ) -> None:
        self.last = last
        self.sync = sync
        self.urgent = urgent
        self.state = state
        self.deadline = deadline
        self.reached = threading.Event()
        self.end = 0
        self.start_step: int | None = None


Item = PartialRow | ClipPart | PeerRows | TrainingStart | Event | FlushMarker


class AbstractOutlet(abc.ABC):
    """Where the rows of a process go: the journal, or process 0.

    `write` and `timeout` are called by the worker, the other methods by the main thread.
    """

    @abc.abstractmethod
    def start(self, open_timeout: float) -> None:
        """Start what it needs; waits at most `open_timeout` seconds."""

    @abc.abstractmethod
    def write(self, items: list[Item], now: float) -> int:
        """Write items, in their order, and set the markers among them. Must not raise.

        Args:
            items: what came from the queue, perhaps nothing.
            now: `time.monotonic()`.

        Returns:
            Bytes of the queue that are written now.
        """

    @abc.abstractmethod
    def timeout(self, now: float) -> float | None:
        """Seconds until `write` must be called even if nothing comes; `None` if never."""

    @abc.abstractmethod
    def flush(self, marker: FlushMarker, deadline: float) -> str | None:
        """Wait until everything before a marker, which was reached, is where it belongs.

        Returns:
            What is missing at the deadline, or `None`.
        """

    @abc.abstractmethod
    def describe_delay(self) -> str:
        """What to report if a marker was not reached in time."""

    @abc.abstractmethod
    def finish(self, state: str, deadline: float) -> list[Event]:
        """The run ends: wait for what is still being made of its rows.

        Returns:
            Last events, to be queued before the last marker.
        """

    @abc.abstractmethod
    def close(self, written: bool, deadline: float, timeout: float) -> None:
        """Release everything.

        Args:
            written: whether the last marker was reached.
            deadline: when to stop waiting, by `time.monotonic()`.
            timeout: how long closing may take in all, for messages.
        """


@final
class Worker:
    """Moves rows from the queue to the outlet, in their order, until the last marker."""

    def __init__(self, queue: RowQueue, outlet: AbstractOutlet, failures: Failures) -> None:
        self._queue = queue
        self._outlet = outlet
        self._failures = failures
        self._reassembler = Reassembler(failures)
        self._last: FlushMarker | None = None
        self._thread = threading.Thread(target=self._run, name="lerax_dist-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._last is None or not self._last.reached.is_set():
            items: list[Item] = []
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
        waits = [self._outlet.timeout(time.monotonic())]
        if self._reassembler.is_waiting:
            waits.append(REORDER_TIMEOUT)
        return min((wait for wait in waits if wait is not None), default=None)

    def _in_order(self, item: Any, size: int) -> list[Item]:
        match item:
            case list():
                return [*self._reassembler.add_packets(item)]
            case HostRow():
                return [self._reassembler.add_host_row(item, size)]
            case PeerRows() | ClipPart() | Event(kind="video"):
                # They belong to rows of their own, and must not hurry the next.
                return [item]
            case TrainingStart():
                return [*self._reassembler.restart(item.stride), item]
            case FlushMarker(last=True):
                self._last = item
        # Rows that were queued before it must not come after it.
        return [*self._reassembler.release(), item]
