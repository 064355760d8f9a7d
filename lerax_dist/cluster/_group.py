"""What a group of processes is, the group of one, and what the larger ones share.

`JaxGroup` and `MPIGroup` move `Message`s: each says which operation it belongs to, so that
processes that make different calls get an error and not each other's values.
"""

import abc
import json
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, final

from lerax_dist.cluster._store import KeyPerProcess

if TYPE_CHECKING:
    from lerax_dist.cluster._departure import Departure

_MAX_NAMED = 16
# Messages of one process that may be in flight in a mailbox before it waits for process 0.
MAX_IN_FLIGHT = 64


class Mailbox(Protocol):
    """A one-way channel to process 0, apart from the operations of a group.

    Usable by one thread at a time. Values are JSON values.
    """

    def has_room(self, *, timeout: float) -> bool:
        """On another process: wait until few messages are in flight; whether that is so."""
        ...

    def send(self, value: Any) -> None:
        """On another process: send a message, whether or not there is room for it."""
        ...

    def senders(self, *, timeout: float) -> Sequence[int]:
        """On process 0: those that may have sent something so far; may wait for the first one."""
        ...

    def receive(self, process: int, *, timeout: float) -> Any | None:
        """On process 0: the next message of a process; None if there is none within `timeout`."""
        ...

    def finish(self, *, timeout: float) -> bool:
        """On another process: wait until its messages no longer need it; whether that is so."""
        ...


class ProcessGroup(abc.ABC):
    """The processes of one run and how they agree off the devices.

    `broadcast`, `gather`, `barrier` and `mailbox` are collective: each process makes the same
    calls, in the same order, with the same `what`. Two threads of a process that use one group at
    the same time have no such order: give each its own group. Groups are compared by identity.

    Values are JSON values: numbers, strings, booleans, None, lists, dictionaries with string keys.
    NaN and infinities are allowed. Every process, the sender too, gets the value as JSON returns
    it: a tuple becomes a list.

    Attributes:
        process_index: index of this process, 0 to `process_count - 1`.
        process_count: number of processes.
        launcher: what started the processes: "solo", "openmpi", "slurm", ...
        hostname: name of this process's host.

    Example:
        ```python
        group = initialize()
        scores = group.gather(0.5, timeout=60.0, what="the score")  # on process 0, else None
        best = group.broadcast(scores and max(scores), timeout=60.0, what="the best score")
        group.barrier(timeout=60.0, what="the end of the evaluation")
        ```
    """

    def __init__(
        self, process_index: int, process_count: int, launcher: str, hostname: str | None = None
    ) -> None:
        self.process_index = process_index
        self.process_count = process_count
        self.launcher = launcher
        self.hostname = hostname or socket.gethostname()

    @property
    def is_writer(self) -> bool:
        """Whether this process opens the backends and writes: process 0 does."""
        return self.process_index == 0

    @property
    @abc.abstractmethod
    def hosts(self) -> Sequence[str | None]:
        """Host name of every process, as far as known; None where it is not known yet.

        Not collective. A `JaxGroup` reads it from process 0, for at most 60 s.
        """

    @abc.abstractmethod
    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        """Give process 0's value to every process.

        Process 0 does not wait: it may return before another process has arrived.

        Args:
            value: on process 0 the value; the others' is ignored.
            timeout: longest wait in seconds.
            what: what is broadcast, for errors, e.g. "the run's name"; the same on every process.

        Returns:
            Process 0's value.

        Raises:
            TimeoutError: process 0 did not arrive in time.
        """

    @abc.abstractmethod
    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        """Bring every process's value to process 0.

        The others do not wait.

        Args:
            value: this process's value.
            timeout: longest wait in seconds.
            what: what is gathered, for errors; the same on every process.

        Returns:
            On process 0 the values in the order of process indices, elsewhere None.

        Raises:
            TimeoutError: on process 0, names the processes that did not arrive in time; elsewhere,
                process 0 took no value in time: it is stuck or cannot be reached.
        """

    @abc.abstractmethod
    def barrier(self, *, timeout: float, what: str) -> None:
        """Wait until every process is here.

        Args:
            timeout: longest wait in seconds.
            what: what is waited for, for errors; the same on every process.

        Raises:
            TimeoutError: names the processes that did not arrive in time. Process 0 decides, so all
                processes raise or return together, unless process 0 itself times out.
        """

    @abc.abstractmethod
    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        """A channel from every process to process 0.

        Args:
            timeout: longest wait for the other processes in seconds; only an `MPIGroup` waits.

        Raises:
            TimeoutError: a process did not make one in time.
        """

    def key_per_process(self, name: str) -> KeyPerProcess | None:
        """A text of each process that every process can read. Not collective, and does not wait.

        None where the processes share no key-value store: only a `JaxGroup` has one.

        Args:
            name: its name, the same on every process.
        """
        return None

    def departure(self, name: str) -> "Departure | None":
        """What the processes of a run say of its end. Not collective, and does not wait.

        None where the processes share no key-value store: only a `JaxGroup` has one.

        Args:
            name: a name of this run alone, the same on every process.
        """
        return None

    def __repr__(self) -> str:
        where = f"process {self.process_index} of {self.process_count}"
        return f"{type(self).__name__}({where}, launcher={self.launcher!r})"


@final
class SoloGroup(ProcessGroup):
    """A single-process group; operations return immediately.

    Args:
        launcher: what started the process, for messages.

    Example:
        ```python
        # Each process writes a run of its own, under a name of its own.
        member = initialize().process_index
        with Logger(JSONLBackend("logs"), f"member-{member}", group=SoloGroup()) as logger:
            logger.log({"loss": 0.5}, step=0)
        ```
    """

    def __init__(self, launcher: str = "solo") -> None:
        super().__init__(0, 1, launcher)

    @property
    def hosts(self) -> list[str | None]:
        return [self.hostname]

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        check_timeout(timeout)
        return decode(encode(Message(0, "broadcast", what, value))).value

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        check_timeout(timeout)
        return [decode(encode(Message(0, "gather", what, value))).value]

    def barrier(self, *, timeout: float, what: str) -> None:
        check_timeout(timeout)

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        check_timeout(timeout)
        return LocalMailbox()


@final
class LocalMailbox:
    """The mailbox of a group of one process: a queue."""

    def __init__(self) -> None:
        self._queue: deque[str] = deque()

    def has_room(self, *, timeout: float) -> bool:
        return True

    def send(self, value: Any) -> None:
        self._queue.append(json.dumps(value))

    def senders(self, *, timeout: float) -> Sequence[int]:
        return [0]

    def receive(self, process: int, *, timeout: float) -> Any | None:
        return json.loads(self._queue.popleft()) if self._queue else None

    def finish(self, *, timeout: float) -> bool:
        return True


@final
@dataclass(frozen=True)
class Message:
    """One process's part in one operation of a group; `operation` is its number."""

    operation: int
    kind: str
    what: str
    value: Any


@final
class Missing(Exception):
    """Ends an operation of a group for which processes did not arrive in time."""

    def __init__(self, processes: Sequence[int], note: str = "") -> None:
        super().__init__(processes, note)
        self.processes = processes
        self.note = note  # a sentence about how this process knows, if not from its own wait


def encode(message: Message) -> str:
    """A message as text; raises a TypeError if its value is not a JSON value."""
    try:
        return json.dumps([message.operation, message.kind, message.what, message.value])
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`value` of the {message.kind} of {message.what} must be JSON (numbers, strings, "
            f"lists, dictionaries), got {message.value!r}: {error}. Convert arrays by `.tolist()`."
        ) from error


def decode(text: str) -> Message:
    """The message that `encode` made."""
    return Message(*json.loads(text))


def check_same(mine: Message, theirs: Message, their_index: int, my_index: int) -> None:
    """Raise a RuntimeError if two processes are in different operations.

    From there on every value would be the wrong one.
    """
    same = (mine.operation, mine.kind, mine.what) == (theirs.operation, theirs.kind, theirs.what)
    if not same:
        raise RuntimeError(
            f"Processes of one group disagree: operation {mine.operation} is the {mine.kind} of "
            f"{mine.what} on process {my_index}, operation {theirs.operation} is the {theirs.kind} "
            f"of {theirs.what} on process {their_index}. Make the same calls in the same order on "
            "every process; no call may depend on the process or on its data."
        )


def missing_error(
    group: ProcessGroup, hosts: Mapping[int, str], mine: Message, timeout: float, missing: Missing
) -> TimeoutError:
    """The error of an operation that timed out; `hosts` are names by process, as far as known."""
    return TimeoutError(
        f"The {mine.kind} of {mine.what} timed out after `timeout` = {timeout:g} s: "
        f"{name_processes(missing.processes, hosts)} did not arrive. {missing.note}This is process "
        f"{group.process_index} of {group.process_count} (host {group.hostname}). Read the output "
        "of the missing processes: they died, are stuck or make other calls; if they are only "
        "slow, raise `timeout`."
    )


def name_processes(processes: Sequence[int], hosts: Mapping[int, str] | None = None) -> str:
    """E.g. "process 3" or "processes 1 (host n1), 3", the first of many, for messages."""
    hosts = hosts or {}
    named = [f"{i} (host {hosts[i]})" if i in hosts else str(i) for i in processes[:_MAX_NAMED]]
    more = f" and {len(processes) - _MAX_NAMED} more" if len(processes) > _MAX_NAMED else ""
    return f"{'process' if len(processes) == 1 else 'processes'} {', '.join(named)}{more}"


def check_timeout(timeout: float) -> float:
    """`timeout`; raises a ValueError unless it is above 0 seconds and finite."""
    if not 0 < timeout < float("inf"):
        raise ValueError(
            f"`timeout` must be a finite number of seconds above 0, got {timeout!r}. "
            "Every wait for another process has a limit; pass a long one if need be."
        )
    return timeout
