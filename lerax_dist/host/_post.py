"""The thread on process 0 that takes in what the other processes send, in `scope="process"`."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._parcel import Theirs, Unpacker
from lerax_dist.host._queue import RowQueue

# A look at every process takes that long at most if nothing comes, in seconds.
_ROUND = 1.0
# Messages of a process at a turn; it sends one a second.
_MOST_AT_A_TURN = 8


@final
@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """What has come from another process.

    Attributes:
        process: its index.
        shares: rows.
        state: how its run ended, if it did.
    """

    process: int
    shares: list[Theirs]
    state: str | None = None


@final
class Post:
    """Brings what arrives in a mailbox to the writer's queue, from every process in turn.

    Args:
        mailbox: what to empty.
        process_count: number of processes.
        queue: where to.
        is_ahead: whether a process is so far ahead of this one that its messages have to wait.
        failures: where to keep what goes wrong.
    """

    def __init__(
        self,
        mailbox: Any,
        process_count: int,
        queue: RowQueue,
        is_ahead: Callable[[int], bool],
        failures: Failures,
    ) -> None:
        self._mailbox = mailbox
        self._unpackers = {process: Unpacker() for process in range(1, process_count)}
        self._queue = queue
        self._is_ahead = is_ahead
        self._failures = failures
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lerax_dist-post", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end within a second; what has not come by then is not taken."""
        self._stopping.set()

    def _run(self) -> None:
        while self._unpackers and not self._stopping.is_set():
            for process in list(self._unpackers):
                try:
                    self._take(process)
                except Exception as error:
                    if not self._stopping.is_set():
                        where = f"process {process}"
                        self._failures.record(where, f"cannot be heard ({error!r})", error)
                    del self._unpackers[process]

    def _take(self, process: int) -> None:
        """Messages of a process that are there; waits its part of a round for the first."""
        timeout = _ROUND / len(self._unpackers)
        if self._is_ahead(process):
            self._stopping.wait(timeout)
            return
        for _ in range(_MOST_AT_A_TURN):
            message = self._mailbox.receive(process, timeout=timeout)
            if message is None:
                return
            if "end" in message:
                self._queue.put(Arrival(process, [], message["end"]))
                del self._unpackers[process]
                return
            self._queue.put(Arrival(process, self._unpackers[process].unpack(message)))
            timeout = 0.0
