"""What a group of processes is, and the group of one."""

import socket
from typing import Any, Protocol, final, runtime_checkable

from lerax_dist.cluster._message import Message, check_timeout, decode, encode


@runtime_checkable
class ProcessGroup(Protocol):
    """The processes of one run and how they agree off the devices.

    `broadcast`, `gather` and `barrier` are operations of all processes: each process makes the same
    calls, in the same order, with the same `what`. Two threads of a process that use one group at a
    time have no such order: give each its own group. Groups are compared by identity.

    Values are JSON values: numbers, strings, booleans, None, lists, dictionaries with string keys.
    NaN and infinities are fine. What comes out has been through JSON on every process, the sender
    too, so that a tuple is a list everywhere.

    Example:
        ```python
        group = initialize()
        scores = group.gather(0.5, timeout=60.0, what="the score")  # on process 0, else None
        best = group.broadcast(scores and max(scores), timeout=60.0, what="the best score")
        group.barrier(timeout=60.0, what="the end of the evaluation")
        ```
    """

    @property
    def process_index(self) -> int:
        """Index of this process, 0 to `process_count - 1`."""
        ...

    @property
    def process_count(self) -> int:
        """Number of processes."""
        ...

    @property
    def launcher(self) -> str:
        """What started the processes: "solo", "openmpi", "slurm", ..."""
        ...

    @property
    def hostname(self) -> str:
        """Name of this process's host."""
        ...

    @property
    def is_writer(self) -> bool:
        """Whether this process opens the backends and writes: process 0 does."""
        ...

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        """Give process 0's value to every process.

        Process 0 waits for nobody: it may return before another process has arrived.

        Args:
            value: on process 0 the value; what the others pass is not looked at.
            timeout: longest wait in seconds.
            what: what is given, for errors, e.g. "the run's name"; the same on every process.

        Returns:
            Process 0's value.

        Raises:
            TimeoutError: process 0 did not arrive in time.
        """
        ...

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        """Bring every process's value to process 0.

        The others wait for nobody.

        Args:
            value: this process's value.
            timeout: longest wait in seconds.
            what: what is brought, for errors; the same on every process.

        Returns:
            On process 0 the values in the order of process indices, elsewhere None.

        Raises:
            TimeoutError: on process 0, names the processes that did not arrive in time; elsewhere,
                process 0 took no value in time, as it stands still or cannot be reached.
        """
        ...

    def barrier(self, *, timeout: float, what: str) -> None:
        """Wait until every process is here.

        Args:
            timeout: longest wait in seconds.
            what: what is waited for, for errors; the same on every process.

        Raises:
            TimeoutError: names the processes that did not arrive in time. Process 0's word goes,
                so all end alike, unless process 0 itself is the one that comes late.
        """
        ...


@final
class SoloGroup:
    """The group of a process on its own: it agrees with itself at once.

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
        self._launcher = launcher
        self._hostname = socket.gethostname()

    @property
    def process_index(self) -> int:
        """Always 0."""
        return 0

    @property
    def process_count(self) -> int:
        """Always 1."""
        return 1

    @property
    def launcher(self) -> str:
        """What started this process; a launcher can start one."""
        return self._launcher

    @property
    def hostname(self) -> str:
        """Name of this host."""
        return self._hostname

    @property
    def is_writer(self) -> bool:
        """Always true."""
        return True

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        """`value`, through JSON as in a larger group."""
        check_timeout(timeout)
        return decode(encode(Message(0, "broadcast", what, value))).value

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        """`[value]`, through JSON as in a larger group."""
        check_timeout(timeout)
        return [decode(encode(Message(0, "gather", what, value))).value]

    def barrier(self, *, timeout: float, what: str) -> None:
        """Nobody to wait for."""
        check_timeout(timeout)

    def __repr__(self) -> str:
        return f"SoloGroup(launcher={self._launcher!r})"
