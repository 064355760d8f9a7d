"""A one-way channel from every process to process 0, for what nobody else has to wait for."""

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, final

from lerax_dist.cluster._store import Store

# Messages that may be under way from one process before it waits for process 0.
_MOST_UNREAD = 64


class Mailbox(Protocol):
    """A channel to process 0. Usable by one thread at a time. Values are JSON values."""

    def send(self, value: Any, *, timeout: float) -> bool:
        """On another process: send a message; waits if process 0 is far behind.

        Returns:
            Whether there was room for it within `timeout` seconds; it is sent all the same.
        """
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
        self._received: dict[int, int] = {}

    def send(self, value: Any, *, timeout: float) -> bool:
        room = True
        behind = self._sent - _MOST_UNREAD
        if behind >= 0 and behind % _MOST_UNREAD == 0:
            mark = f"{self._folder}/read/{self._index}/{behind}"
            room = self._store.get(mark, time.monotonic() + timeout) is not None
            self._store.delete(mark)
        self._store.put(f"{self._folder}/{self._index}/{self._sent}", json.dumps(value))
        self._sent += 1
        return room

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

    def send(self, value: Any, *, timeout: float) -> bool:
        while self._under_way and self._under_way[0]():
            self._under_way.popleft()
        room = len(self._under_way) < _MOST_UNREAD or self._poll(
            self._under_way[0], time.monotonic() + timeout
        )
        self._under_way.append(self._send(json.dumps(value)))
        return room

    def receive(self, process: int, *, timeout: float) -> Any | None:
        deadline = time.monotonic() + timeout
        found: list[str] = []

        def look() -> bool:
            text = self._take(process, deadline)
            if text is not None:
                found.append(text)
            return bool(found)

        return json.loads(found[0]) if self._poll(look, deadline) else None

    def finish(self, *, timeout: float) -> bool:
        return self._poll(
            lambda: all([left() for left in self._under_way]), time.monotonic() + timeout
        )
