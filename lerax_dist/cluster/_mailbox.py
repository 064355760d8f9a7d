"""A one-way channel from every process to process 0, for what nobody else has to wait for."""

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, final

from lerax_dist.cluster._store import Store

# Messages that may be under way from one process before it waits for process 0.
_MOST_UNREAD = 64
# How long a message may take from its first byte to its last, in seconds.
_LONGEST_MESSAGE = 30.0


class Mailbox(Protocol):
    """A channel to process 0. Usable by one thread at a time. Values are JSON values."""

    def has_room(self, *, timeout: float) -> bool:
        """On another process: whether process 0 is not far behind; waits until it is so."""
        ...

    def send(self, value: Any) -> None:
        """On another process: send a message, whether or not there is room for it."""
        ...

    def receive(self, process: int, *, timeout: float) -> Any | None:
        """On process 0: the next message of a process.

        Returns:
            The message; `None` if none has come within `timeout` seconds.
        """
        ...

    def finish(self, *, timeout: float) -> bool:
        """On another process: wait until what was sent needs this process no longer."""
        ...


@final
class StoreMailbox:
    """A mailbox in JAX's coordination service.

    Args:
        store: the service.
        folder: where in it, the same on every process and nobody else's.
        index: index of this process.
    """

    def __init__(self, store: Store, folder: str, index: int) -> None:
        self._store = store
        self._folder = folder
        self._index = index
        self._sent = 0
        # Number of the next message that process 0 is to say it has read.
        self._unread = 0
        self._received: dict[int, int] = {}

    def has_room(self, *, timeout: float) -> bool:
        behind = self._sent - _MOST_UNREAD
        if behind < self._unread:
            return True
        mark = f"{self._folder}/read/{self._index}/{self._unread}"
        if self._store.get(mark, time.monotonic() + timeout) is None:
            return False
        self._store.delete(mark)
        self._unread += _MOST_UNREAD
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
        if number % _MOST_UNREAD == 0:
            self._store.put(f"{self._folder}/read/{process}/{number}", "")
        self._received[process] = number + 1
        return json.loads(text)

    def finish(self, *, timeout: float) -> bool:
        """The service holds what was sent."""
        return True


@final
class MPIMailbox:
    """A mailbox on an MPI communicator of its own.

    Args:
        send: starts sending a text to process 0; gives what says whether it has left.
        take: the next text of a process, if there is one.
        poll: asks until the answer is yes or a deadline has passed.
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
        self._under_way: deque[Callable[[], bool]] = deque()

    def has_room(self, *, timeout: float) -> bool:
        while self._under_way and self._under_way[0]():
            self._under_way.popleft()
        return len(self._under_way) < _MOST_UNREAD or self._poll(
            self._under_way[0], time.monotonic() + timeout
        )

    def send(self, value: Any) -> None:
        self._under_way.append(self._send(json.dumps(value)))

    def receive(self, process: int, *, timeout: float) -> Any | None:
        deadline = time.monotonic() + timeout
        found: list[str] = []

        def look() -> bool:
            # One that has begun to come is taken in whole.
            text = self._take(process, max(deadline, time.monotonic() + _LONGEST_MESSAGE))
            if text is not None:
                found.append(text)
            return bool(found)

        return json.loads(found[0]) if self._poll(look, deadline) else None

    def finish(self, *, timeout: float) -> bool:
        return self._poll(
            lambda: all([left() for left in self._under_way]), time.monotonic() + timeout
        )
