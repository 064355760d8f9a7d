"""A group that agrees through JAX's coordination service."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any, final

from lerax_dist.cluster._group import (
    Message,
    ProcessGroup,
    ProcessInfo,
    check_same,
    check_timeout,
    decode,
    encode,
    missing_error,
)
from lerax_dist.cluster._mailbox import Mailbox, StoreMailbox
from lerax_dist.cluster._store import (
    KeyPerProcess,
    Store,
    Unanswered,
    joined_client,
    joined_place,
)

_ROOT = "lerax_dist"
# How long process 0 may take to answer where the caller gives no timeout.
_TIMEOUT = 60.0
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
        self._store = Store(client)
        self.info = ProcessInfo(*joined_place(), launcher)
        self._index, self._count = self.info.index, self.info.count
        # As far as known, for errors, when process 0 may not answer.
        self._hosts = {self._index: self.hostname}
        self._store.put(f"{_ROOT}/hosts/{self._index}", self.hostname, within=_TIMEOUT)
        # Counted in the store and not in this module: it starts afresh with each service.
        number = self._store.count(f"{_ROOT}/made/{self._index}", within=_TIMEOUT)
        self._folder = f"{_ROOT}/groups/{number}"
        self._operations = itertools.count()

    @property
    def hosts(self) -> list[str | None]:
        known = self._known_hosts(_TIMEOUT)
        return [known.get(index) for index in range(self._count)]

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        mine_only = value if self.is_writer else None
        with self._begin("broadcast", what, mine_only, timeout) as (mine, folder, deadline):
            if self.is_writer:
                text = encode(mine)
                if self._count > 1:
                    self._store.put(f"{folder}/out", text, within=_left(deadline))
                return decode(text).value
            text = self._store.get(f"{folder}/out", deadline)
            if text is None:
                raise self._missing(mine, timeout, [0])
            self._read_out(folder)
            theirs = decode(text)
            check_same(mine, theirs, 0, self._index)
            return theirs.value

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        with self._begin("gather", what, value, timeout) as (mine, folder, deadline):
            text = encode(mine)
            if not self.is_writer:
                self._store.put(f"{folder}/in/{self._index}", text, within=_left(deadline))
                return None
            texts = self._collect(folder, {0: text}, deadline)
            self._store.delete(folder, within=_left(deadline))
            missing = [index for index in range(self._count) if index not in texts]
            if missing:
                raise self._missing(mine, timeout, missing)
            messages = [decode(texts[index]) for index in range(self._count)]
            for index, theirs in enumerate(messages):
                check_same(mine, theirs, index, self._index)
            return [theirs.value for theirs in messages]

    def barrier(self, *, timeout: float, what: str) -> None:
        with self._begin("barrier", what, None, timeout) as (mine, folder, deadline):
            # Process 0 decides and publishes the outcome, so that all end alike; its own arrival is
            # written down too, for processes that wait for it in vain.
            arrival = f"{folder}/in/{self._index}"
            self._store.put(arrival, encode(mine), within=_left(deadline))
            if self.is_writer:
                self._decide_barrier(mine, folder, timeout, deadline)
            else:
                self._await_barrier(mine, folder, timeout, deadline)

    def _decide_barrier(self, mine: Message, folder: str, timeout: float, deadline: float) -> None:
        texts = self._collect(folder, {}, deadline)
        missing = [index for index in range(self._count) if index not in texts]
        if self._count > 1:
            outcome = Message(mine.operation, mine.kind, mine.what, missing)
            self._store.put(f"{folder}/out", encode(outcome), within=_left(deadline))
        self._store.delete(f"{folder}/in", within=_left(deadline))
        if missing:
            raise self._missing(mine, timeout, missing)
        for index, text in texts.items():
            check_same(mine, decode(text), index, self._index)

    def _await_barrier(self, mine: Message, folder: str, timeout: float, deadline: float) -> None:
        text = self._store.get(f"{folder}/out", deadline)
        if text is None:
            # Read everything once: arrivals are deleted only after the outcome is published.
            present = self._store.list(folder, within=_LAST_READ_TIMEOUT)
            text = present.get("out")
            if text is None:
                missing = [index for index in range(self._count) if str(index) not in present]
                raise self._missing(mine, timeout, missing or [0])
        self._read_out(folder)
        outcome = decode(text)
        check_same(mine, outcome, 0, self._index)
        if outcome.value:
            raise self._missing(mine, timeout, outcome.value, "Process 0 had stopped waiting. ")

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        check_timeout(timeout)
        folder = f"{self._folder}/{next(self._operations)}"
        return StoreMailbox(self._store, folder, self._index)

    def key_per_process(self, name: str) -> KeyPerProcess:
        return KeyPerProcess(self._store, f"{_ROOT}/per_process/{name}", self._index)

    @contextlib.contextmanager
    def _begin(
        self, kind: str, what: str, value: Any, timeout: float
    ) -> Iterator[tuple[Message, str, float]]:
        """One operation; gives its message, its folder and its deadline."""
        deadline = time.monotonic() + check_timeout(timeout)
        mine = Message(next(self._operations), kind, what, value)
        try:
            yield mine, f"{self._folder}/{mine.operation}", deadline
        except Unanswered as error:
            raise missing_error(mine, timeout, [0], self.info, self._hosts) from error

    def _collect(self, folder: str, texts: dict[int, str], deadline: float) -> dict[int, str]:
        """The messages that reach a folder before a deadline, by process index."""
        found = dict(texts)
        while len(found) < self._count:
            found.update(self._arrived(folder, _left(deadline)))
            first = next((index for index in range(self._count) if index not in found), None)
            if first is not None and self._store.get(f"{folder}/in/{first}", deadline) is None:
                # Others may have arrived while this one was waited for.
                return found | self._arrived(folder, _LAST_READ_TIMEOUT)
        return found

    def _arrived(self, folder: str, within: float) -> dict[int, str]:
        texts = self._store.list(f"{folder}/in", within=within)
        return {int(index): text for index, text in texts.items()}

    def _read_out(self, folder: str) -> None:
        """Count that this process has read the folder; the last one deletes it."""
        if 0 not in self._hosts:
            host = self._store.get(f"{_ROOT}/hosts/0", time.monotonic() + _LAST_READ_TIMEOUT)
            self._hosts |= {} if host is None else {0: host}
        # What was read is valid even if process 0 does not answer from here on.
        with contextlib.suppress(Unanswered):
            if self._store.count(f"{folder}/read", within=_LAST_READ_TIMEOUT) == self._count - 1:
                self._store.delete(folder, within=_LAST_READ_TIMEOUT)

    def _missing(
        self, mine: Message, timeout: float, missing: list[int], note: str = ""
    ) -> TimeoutError:
        hosts = self._known_hosts(_LAST_READ_TIMEOUT)
        return missing_error(mine, timeout, missing, self.info, hosts, note)

    def _known_hosts(self, within: float) -> dict[int, str]:
        with contextlib.suppress(Unanswered):
            hosts = self._store.list(f"{_ROOT}/hosts", within=within)
            self._hosts |= {int(index): host for index, host in hosts.items()}
        return self._hosts


def _left(deadline: float) -> float:
    """Seconds that process 0 has for an answer; a moment even when the deadline has passed."""
    return max(deadline - time.monotonic(), _LAST_READ_TIMEOUT)
