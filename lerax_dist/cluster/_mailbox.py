"""A one-way channel from every process to process 0, apart from the operations of a group."""

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, final

from lerax_dist.cluster._store import Store

# Messages of one process that may be in flight before it waits for process 0.
_MAX_IN_FLIGHT = 64
# How long a message may take from its first byte to its last, in seconds.
_MESSAGE_TIMEOUT = 30.0


class Mailbox(Protocol):
    """A channel to process 0. Usable by one thread at a time. Values are JSON values."""

    def has_room(self, *, timeout: float) -> bool:
        """On another process: wait until few messages are in flight; whether that is so."""
        ...

    def send(self, value: Any) -> None:
        """On another process: send a message, whether or not there is room for it."""
        ...

    def receive(self, process: int, *, timeout: float) -> Any | None:
        """On process 0: the next message of a process; None if there is none within `timeout`."""
        ...

    def finish(self, *, timeout: float) -> bool:
        """On another process: wait until its messages no longer need it; whether that is so."""
        ...


@final
class LocalMailbox:
    """The mailbox of a group of one process: a queue."""

    def __init__(self) -> None:
        self._queue: deque[str] = deque()

    def has_room(self, *, timeout: float) -> bool:
        return True

    def send(self, value: Any) -> None:
        self._queue.append(json.dumps(value))

    def receive(self, process: int, *, timeout: float) -> Any | None:
        return json.loads(self._queue.popleft()) if self._queue else None

    def finish(self, *, timeout: float) -> bool:
        return True


@final
class StoreMailbox:
    """A mailbox in JAX's coordination service.

    Args:
        store: the service.
        folder: folder of the keys, the same on every process and for this mailbox alone.
        index: index of this process.
    """

    def __init__(self, store: Store, folder: str, index: int) -> None:
        self._store = store
        self._folder = folder
        self._index = index
        self._sent = 0
        # Number of the next message that process 0 acknowledges.
        self._unacknowledged = 0
        self._received: dict[int, int] = {}

    def has_room(self, *, timeout: float) -> bool:
        oldest = self._sent - _MAX_IN_FLIGHT
        if oldest < self._unacknowledged:
            return True
        mark = f"{self._folder}/read/{self._index}/{self._unacknowledged}"
        if self._store.get(mark, time.monotonic() + timeout) is None:
            return False
        self._store.delete(mark)
        self._unacknowledged += _MAX_IN_FLIGHT
        return True

    def send(self, value: Any) -> None:
        self._store.put(f"{self._folder}/{self._index}/{self._sent}", json.dumps(value))
        self._sent += 1

    def receive(self, process: int, *, timeout: float) -> Any | None:
        number = self._received.get(process, 0)
        key = f"{self._folder}/{process}/{number}"
        text = self._store.get(key, time.monotonic() + timeout)
        if text is None:
            return None
        self._store.delete(key)
        if number % _MAX_IN_FLIGHT == 0:
            self._store.put(f"{self._folder}/read/{process}/{number}", "")
        self._received[process] = number + 1
        return json.loads(text)

    def finish(self, *, timeout: float) -> bool:
        return True  # the service holds the messages


@final
class MPIMailbox:
    """A mailbox on an MPI communicator of its own.

    Args:
        send: starts sending a text to process 0; returns a function that says whether it is sent.
        take: the next text of a process, if there is one.
        poll: calls a function until it is true or a deadline has passed.
    """

    def __init__(
        self,
        send: Callable[[str], Callable[[], bool]],
        take: Callable[[int, float], str | None],
        poll: Callable[[Callable[[], bool], float], bool],
    ) -> None:
        self._send = send
        self._take = take
        self._poll = poll
        self._in_flight: deque[Callable[[], bool]] = deque()

    def has_room(self, *, timeout: float) -> bool:
        while self._in_flight and self._in_flight[0]():
            self._in_flight.popleft()
        return len(self._in_flight) < _MAX_IN_FLIGHT or self._poll(
            self._in_flight[0], time.monotonic() + timeout
        )

    def send(self, value: Any) -> None:
        self._in_flight.append(self._send(json.dumps(value)))

    def receive(self, process: int, *, timeout: float) -> Any | None:
        deadline = time.monotonic() + timeout
        found: list[str] = []

        def arrived() -> bool:
            # A message that has begun to arrive is read to its end.
            text = self._take(process, max(deadline, time.monotonic() + _MESSAGE_TIMEOUT))
            if text is not None:
                found.append(text)
            return bool(found)

        return json.loads(found[0]) if self._poll(arrived, deadline) else None

    def finish(self, *, timeout: float) -> bool:
        return self._poll(
            lambda: all([sent() for sent in self._in_flight]), time.monotonic() + timeout
        )
