"""A group that agrees through JAX's coordination service."""

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, final

from lerax_dist.cluster._departure import Departure
from lerax_dist.cluster._group import (
    MAX_IN_FLIGHT,
    Mailbox,
    Message,
    Missing,
    ProcessGroup,
    check_same,
    check_timeout,
    decode,
    encode,
    missing_error,
)
from lerax_dist.cluster._store import KeyPerProcess, Store, Unanswered, joined_client, joined_place

_ROOT = "lerax_dist"
# How long process 0 may take to answer where the caller gives no timeout.
_TIMEOUT = 60.0
# Values a second that process 0 reads again while it waits for the next one.
_MAX_READS = 10_000.0
# How long it may take to answer when a timeout has passed.
_LAST_READ_TIMEOUT = 1.0


@final
class JaxGroup(ProcessGroup):
    """The processes that have joined with `jax.distributed.initialize`. No device is involved.

    A process may make several groups; the n-th of one process talks to the n-th of the others, so
    every process makes the same ones in the same order. Making one does not wait for the others.
    All operations work from any thread.

    Args:
        launcher: what started the processes, for messages.

    Raises:
        RuntimeError: this process has not joined, or process 0 does not answer.

    Example:
        ```python
        initialize()
        try:
            group = JaxGroup()  # one more beside that of `initialize`, e.g. for another thread
        except RuntimeError:
            group = SoloGroup()  # one process on its own joins nothing
        ```
    """

    def __init__(self, launcher: str = "jax") -> None:
        client = joined_client()
        if client is None:
            raise RuntimeError(
                "`JaxGroup` needs JAX's coordination service, which this process has not joined. "
                "Call `lerax_dist.initialize()` at the top of the script."
            )
        super().__init__(*joined_place(), launcher)
        self._store = Store(client)
        # As far as known, for errors, when process 0 may not answer.
        self._hosts = {self.process_index: self.hostname}
        self._store.put(f"{_ROOT}/hosts/{self.process_index}", self.hostname, within=_TIMEOUT)
        # Counted in the store and not in this module: it starts afresh with each service.
        number = self._store.count(f"{_ROOT}/made/{self.process_index}", within=_TIMEOUT)
        self._folder = f"{_ROOT}/groups/{number}"
        self._operations = itertools.count()

    @property
    def hosts(self) -> list[str | None]:
        self._read_hosts(_TIMEOUT)
        return [self._hosts.get(index) for index in range(self.process_count)]

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        mine_only = value if self.is_writer else None
        with self._begin("broadcast", what, mine_only, timeout) as (mine, folder, deadline):
            if self.is_writer:
                text = encode(mine)
                if self.process_count > 1:
                    self._store.put(f"{folder}/out", text, within=_left(deadline))
                return decode(text).value
            text = self._store.get(f"{folder}/out", deadline)
            if text is None:
                raise Missing([0])
            return self._read_out(mine, folder, text)

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        with self._begin("gather", what, value, timeout) as (mine, folder, deadline):
            text = encode(mine)
            if not self.is_writer:
                key = f"{folder}/in/{self.process_index}"
                self._store.put(key, text, within=_left(deadline))
                return None
            texts, missing = self._collect(folder, {0: text}, deadline)
            self._store.delete(folder, within=_left(deadline))
            if missing:
                raise Missing(missing)
            return self._values(mine, texts)

    def barrier(self, *, timeout: float, what: str) -> None:
        with self._begin("barrier", what, None, timeout) as (mine, folder, deadline):
            # Process 0 decides and publishes the outcome, so that all end alike; its own arrival is
            # published too, for processes that still wait for it.
            arrival = f"{folder}/in/{self.process_index}"
            self._store.put(arrival, encode(mine), within=_left(deadline))
            if self.is_writer:
                self._decide_barrier(mine, folder, deadline)
            else:
                self._await_barrier(mine, folder, deadline)

    def _decide_barrier(self, mine: Message, folder: str, deadline: float) -> None:
        texts, missing = self._collect(folder, {}, deadline)
        if self.process_count > 1:
            outcome = Message(mine.operation, mine.kind, mine.what, missing)
            self._store.put(f"{folder}/out", encode(outcome), within=_left(deadline))
        self._store.delete(f"{folder}/in", within=_left(deadline))
        if missing:
            raise Missing(missing)
        self._values(mine, texts)

    def _await_barrier(self, mine: Message, folder: str, deadline: float) -> None:
        text = self._store.get(f"{folder}/out", deadline)
        if text is None:
            # Read everything once: arrivals are deleted only after the outcome is published.
            present = self._store.list(folder, within=_LAST_READ_TIMEOUT)
            text = present.get("out")
            if text is None:
                missing = [i for i in range(self.process_count) if str(i) not in present]
                raise Missing(missing or [0])
        missing = self._read_out(mine, folder, text)
        if missing:
            raise Missing(missing, "Process 0 had stopped waiting. ")

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        check_timeout(timeout)
        folder = f"{self._folder}/{next(self._operations)}"
        return StoreMailbox(self._store, folder, self.process_index)

    def key_per_process(self, name: str) -> KeyPerProcess:
        return KeyPerProcess(self._store, f"{_ROOT}/per_process/{name}", self.process_index)

    def departure(self, name: str) -> Departure:
        folder = f"{_ROOT}/departures/{name}"
        return Departure(self._store, folder, self.process_index, self.process_count)

    @contextlib.contextmanager
    def _begin(
        self, kind: str, what: str, value: Any, timeout: float
    ) -> Iterator[tuple[Message, str, float]]:
        """One operation; gives its message, its folder and its deadline."""
        deadline = time.monotonic() + check_timeout(timeout)
        mine = Message(next(self._operations), kind, what, value)
        try:
            yield mine, f"{self._folder}/{mine.operation}", deadline
        except Missing as missing:
            self._read_hosts(_LAST_READ_TIMEOUT)
            raise missing_error(self, self._hosts, mine, timeout, missing) from None
        except Unanswered as error:
            raise missing_error(self, self._hosts, mine, timeout, Missing([0])) from error

    def _collect(
        self, folder: str, texts: dict[int, str], deadline: float
    ) -> tuple[dict[int, str], list[int]]:
        """What reaches an operation's folder before a deadline, beside the `texts` known already.

        Returns the texts by process, and the processes that are missing.
        """
        is_late = False
        while True:
            arrived = self._store.list(f"{folder}/in", within=_left(deadline))
            texts |= {int(index): text for index, text in arrived.items()}
            missing = [index for index in range(self.process_count) if index not in texts]
            if is_late or not missing:
                return texts, missing
            # Others may arrive while this one is waited for: all is read again, but not for each.
            time.sleep(min(self.process_count / _MAX_READS, _left(deadline)))
            is_late = self._store.get(f"{folder}/in/{missing[0]}", deadline) is None

    def _values(self, mine: Message, texts: dict[int, str]) -> list[Any]:
        """The values of all processes in order, which must be in this operation."""
        messages = [decode(texts[index]) for index in range(self.process_count)]
        for index, theirs in enumerate(messages):
            check_same(mine, theirs, index, self.process_index)
        return [theirs.value for theirs in messages]

    def _read_out(self, mine: Message, folder: str, text: str) -> Any:
        """The value that process 0 published. The last process that reads it deletes the folder."""
        if 0 not in self._hosts:
            host = self._store.get(f"{_ROOT}/hosts/0", time.monotonic() + _LAST_READ_TIMEOUT)
            self._hosts |= {} if host is None else {0: host}
        # What was read is valid even if process 0 does not answer from here on.
        with contextlib.suppress(Unanswered):
            readers = self._store.count(f"{folder}/read", within=_LAST_READ_TIMEOUT)
            if readers == self.process_count - 1:
                self._store.delete(folder, within=_LAST_READ_TIMEOUT)
        theirs = decode(text)
        check_same(mine, theirs, 0, self.process_index)
        return theirs.value

    def _read_hosts(self, within: float) -> None:
        with contextlib.suppress(Unanswered):
            hosts = self._store.list(f"{_ROOT}/hosts", within=within)
            self._hosts |= {int(index): host for index, host in hosts.items()}


@final
class StoreMailbox:
    """A mailbox in JAX's coordination service.

    `folder` is the same on every process and for this mailbox alone, and `index` this process's.
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
        oldest = self._sent - MAX_IN_FLIGHT
        if oldest < self._unacknowledged:
            return True
        mark = f"{self._folder}/read/{self._index}/{self._unacknowledged}"
        if self._store.get(mark, time.monotonic() + timeout) is None:
            return False
        self._store.delete(mark)
        self._unacknowledged += MAX_IN_FLIGHT
        return True

    def send(self, value: Any) -> None:
        if self._sent == 0:
            self._store.put(f"{self._folder}/senders/{self._index}", "")
            self._store.put(f"{self._folder}/sent", "")
        self._store.put(f"{self._folder}/{self._index}/{self._sent}", json.dumps(value))
        self._sent += 1

    def senders(self, *, timeout: float) -> list[int]:
        if self._store.get(f"{self._folder}/sent", time.monotonic() + timeout) is None:
            return []
        # One request, however many processes there are.
        return sorted(map(int, self._store.list(f"{self._folder}/senders")))

    def receive(self, process: int, *, timeout: float) -> Any | None:
        number = self._received.get(process, 0)
        key = f"{self._folder}/{process}/{number}"
        text = self._store.get(key, time.monotonic() + timeout)
        if text is None:
            return None
        self._store.delete(key)
        if number % MAX_IN_FLIGHT == 0:
            self._store.put(f"{self._folder}/read/{process}/{number}", "")
        self._received[process] = number + 1
        return json.loads(text)

    def finish(self, *, timeout: float) -> bool:
        return True  # the service holds the messages


def _left(deadline: float) -> float:
    """Seconds that process 0 has for an answer; a moment even when the deadline has passed."""
    return max(deadline - time.monotonic(), _LAST_READ_TIMEOUT)
