"""Several processes in one, for what a process does by itself: loggers that share one run.

What processes do to each other over a network is tested with real ones, in `tests/multiprocess`.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import lerax_dist as ld

LoggerT = TypeVar("LoggerT")


class World:
    """What the processes share: values by the number of the call, and their mail."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.changed = threading.Condition()
        self.values: dict[tuple[str, int, int], Any] = {}
        self.mail = [Mail(self.changed) for _ in range(count)]


class Mail:
    """A mailbox in memory, from one process to process 0.

    Attributes:
        room: whether process 0 takes messages.
        asked: set once the process has asked whether it does.
        errors: what the next sends raise.
        sent: every message, as text.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self.room, self.asked = threading.Event(), threading.Event()
        self.room.set()
        self.errors: list[Exception] = []
        self.sent: list[str] = []
        self.read = 0
        self.changed = changed


class Mailbox:
    """The end of the mail that one process holds."""

    def __init__(self, world: World, process: int) -> None:
        self._world, self._mine = world, world.mail[process]

    def has_room(self, *, timeout: float) -> bool:
        self._mine.asked.set()
        return self._mine.room.wait(min(timeout, 0.01))

    def send(self, value: Any) -> None:
        if self._mine.errors:
            raise self._mine.errors.pop(0)
        with self._world.changed:
            self._mine.sent.append(json.dumps(value))
            self._world.changed.notify_all()

    def senders(self, *, timeout: float) -> list[int]:
        with self._world.changed:
            self._world.changed.wait_for(lambda: any(m.sent for m in self._world.mail), timeout)
        return [index for index, mail in enumerate(self._world.mail) if mail.sent]

    def receive(self, process: int, *, timeout: float) -> Any | None:
        mail = self._world.mail[process]
        with self._world.changed:
            if not self._world.changed.wait_for(lambda: len(mail.sent) > mail.read, timeout):
                return None
            mail.read += 1
            return json.loads(mail.sent[mail.read - 1])

    def finish(self, *, timeout: float) -> bool:
        return True


class Peer(ld.ProcessGroup):
    """The group of one of them."""

    def __init__(self, world: World, process_index: int) -> None:
        super().__init__(process_index, world.count, "memory", f"host{process_index}")
        self._world = world
        self._calls: dict[str, int] = defaultdict(int)

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        if self.is_writer:
            self._put("broadcast", value)
            return json.loads(json.dumps(value))
        return self._get("broadcast", [0], timeout)[0]

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        if not self.is_writer:
            self._put("gather", value)
            return None
        others = self._get("gather", range(1, self.process_count), timeout)
        return [json.loads(json.dumps(value)), *others]

    def barrier(self, *, timeout: float, what: str) -> None:
        self.broadcast(self.gather(None, timeout=timeout, what=what), timeout=timeout, what=what)

    @property
    def hosts(self) -> list[str]:
        return [f"host{index}" for index in range(self.process_count)]

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        return Mailbox(self._world, self.process_index)

    def _put(self, kind: str, value: Any) -> None:
        with self._world.changed:
            key = (kind, self._calls[kind], self.process_index)
            self._world.values[key] = json.loads(json.dumps(value))
            self._world.changed.notify_all()
        self._calls[kind] += 1

    def _get(self, kind: str, processes: Sequence[int], timeout: float) -> list[Any]:
        keys = [(kind, self._calls[kind], process) for process in processes]
        self._calls[kind] += 1
        with self._world.changed:
            there = self._world.changed.wait_for(
                lambda: all(key in self._world.values for key in keys), timeout
            )
            if not there:
                raise TimeoutError(f"{kind} after {timeout} s")
            return [self._world.values[key] for key in keys]


def open_together(
    count: int, make: Callable[[Peer], LoggerT], *, deadline: float = 60.0
) -> tuple[World, list[LoggerT]]:
    """Loggers of as many processes, all opened at once."""
    world = World(count)
    with ThreadPoolExecutor(count) as pool:
        made = [pool.submit(make, Peer(world, process)) for process in range(count)]
        until = time.monotonic() + deadline
        return world, [each.result(until - time.monotonic()) for each in made]


def writer_and_idle(make: Callable[[Peer], LoggerT]) -> tuple[LoggerT, LoggerT]:
    """The logger that writes a run of one program over two processes, and the one that does not."""
    _, (writer, idle) = open_together(2, make)
    return writer, idle
