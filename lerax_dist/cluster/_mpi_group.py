"""A group that agrees through MPI, for launches that do not join JAX's coordination service."""

import functools as ft
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from lerax_dist.cluster._mailbox import Mailbox, MPIMailbox
from lerax_dist.cluster._message import (
    Message,
    check_same,
    check_timeout,
    decode,
    encode,
    missing_error,
)
from lerax_dist.cluster._mpi import check_world, import_mpi
from lerax_dist.cluster.launchers import detect

_TAG = 29517
# How much longer the others wait at a barrier for process 0 to say who is missing.
_GRACE = 2.0


@final
class MPIGroup:
    """The processes of an MPI communicator, on a duplicate of it that nobody else uses.

    Making one is an operation of all processes of `comm`. A wait polls under its time limit, so a
    process that is late or dead is a `TimeoutError`, not a hang. What cannot be limited is the end:
    an MPI process that leaves with an error waits in `MPI_Finalize` for the others (`python -m
    mpi4py script.py` aborts the launch instead).

    MPI must have been started with `MPI_THREAD_MULTIPLE`, mpi4py's default, for use from another
    thread than MPI's main one; that is checked on each use. One operation runs at a time.

    Args:
        comm: communicator, by default `mpi4py.MPI.COMM_WORLD`.
        timeout: longest wait for the other processes in seconds.

    Raises:
        RuntimeError: there is no MPI library, or it is not the one of this launch.
        TimeoutError: a process did not arrive.

    Example:
        ```python
        group = MPIGroup()  # `mpirun`, one program per process; JAX has joined nothing
        with Logger(JSONLBackend("logs"), group=group, scope="process") as logger:
            logger.log({"loss": 0.5 + group.process_index}, step=0)  # the mean is written
        ```
    """

    def __init__(self, comm: Any = None, *, timeout: float = 300.0) -> None:
        deadline = time.monotonic() + check_timeout(timeout)
        self._mpi = import_mpi()
        launch = detect(os.environ)
        self._launcher = launch.launcher if launch.uses_mpi else "mpi"
        if comm is None:
            comm = self._mpi.COMM_WORLD
            library = self._mpi.Get_library_version().splitlines()[0].strip("\x00 ")
            check_world(launch, comm.Get_rank(), comm.Get_size(), library)
        self._index: int = comm.Get_rank()
        self._count: int = comm.Get_size()
        self._hostname = socket.gethostname()
        self._hosts = {self._index: self._hostname}
        self._lock = threading.Lock()
        self._operation = 0
        # Messages on their way when a time limit passed: MPI still uses their memory.
        self._pending: list[tuple[Any, bytes | bytearray]] = []
        # Over `comm` itself, since only messages tell who is missing; a duplicate does not.
        self._comm: Any = comm
        names = self.gather(self._hostname, timeout=timeout, what="host names")
        names = self.broadcast(names, timeout=timeout, what="host names")
        self._hosts = dict(enumerate(names))
        self._comm = self._duplicate("`MPIGroup`", deadline, timeout)

    @property
    def process_index(self) -> int:
        """Rank of this process in the communicator."""
        return self._index

    @property
    def process_count(self) -> int:
        """Size of the communicator."""
        return self._count

    @property
    def launcher(self) -> str:
        """What started the processes; "mpi" if the environment does not say."""
        return self._launcher

    @property
    def hostname(self) -> str:
        """Name of this host."""
        return self._hostname

    @property
    def hosts(self) -> list[str]:
        """Host name of every process."""
        return [self._hosts[index] for index in range(self._count)]

    @property
    def is_writer(self) -> bool:
        """Whether this is process 0."""
        return self._index == 0

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        """Give process 0's value to every process, see `ProcessGroup.broadcast`.

        A value above MPI's eager limit (a few KiB) is handed over directly: then process 0 does
        wait for the others, and names those that did not take it.
        """
        with self._begin("broadcast", what, value, timeout) as (mine, deadline):
            if not self.is_writer:
                return self._hear(mine, timeout, deadline).value
            text = encode(mine)
            if late := self._send(text, self._others(), deadline):
                raise self._missing(mine, timeout, late)
            return decode(text).value

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        """Bring every process's value to process 0, see `ProcessGroup.gather`.

        A value above MPI's eager limit (a few KiB) is handed over directly: then its sender does
        wait for process 0.
        """
        with self._begin("gather", what, value, timeout) as (mine, deadline):
            text = encode(mine)
            if not self.is_writer:
                if self._send(text, [0], deadline):
                    raise self._missing(mine, timeout, [0])
                return None
            messages = {0: decode(text)} | self._collect(mine, self._others(), deadline)
            missing = [index for index in range(self._count) if index not in messages]
            if missing:
                raise self._missing(mine, timeout, missing)
            return [messages[index].value for index in range(self._count)]

    def barrier(self, *, timeout: float, what: str) -> None:
        """Wait until every process is here, see `ProcessGroup.barrier`.

        The others give process 0 two seconds more, to hear from it who is missing.
        """
        with self._begin("barrier", what, None, timeout) as (mine, deadline):
            if self.is_writer:
                arrived = self._collect(mine, self._others(), deadline)
                missing = [index for index in self._others() if index not in arrived]
                verdict = encode(Message(mine.operation, mine.kind, mine.what, missing))
                # Few bytes, which MPI takes at once: nobody is waited for here.
                self._send(verdict, self._others(), time.monotonic() + _GRACE)
                if missing:
                    raise self._missing(mine, timeout, missing)
                return
            self._send(encode(mine), [0], deadline)
            missing = self._hear(mine, timeout, deadline + _GRACE).value
            if missing:
                raise self._missing(mine, timeout, missing, "Process 0 had stopped waiting. ")

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        """A channel to process 0. Every process makes the same ones in the same order.

        Args:
            timeout: longest wait for the other processes in seconds.

        Raises:
            TimeoutError: a process did not make one in time.
        """
        self.barrier(timeout=timeout, what="a mailbox")
        comm = self._duplicate("a mailbox", time.monotonic() + timeout, timeout)

        def send(text: str) -> Callable[[], bool]:
            self._check_thread()
            data = text.encode()
            request = comm.Isend([data, self._mpi.BYTE], dest=0, tag=_TAG)
            # MPI uses the bytes until it is done.
            return lambda: bool(data is not None and request.Test())

        return MPIMailbox(send, ft.partial(self._take, comm), ft.partial(_poll, longest=0.02))

    def _duplicate(self, what: str, deadline: float, timeout: float) -> Any:
        """A communicator that nobody else uses."""
        comm, request = self._comm.Idup()
        if not _poll(request.Test, deadline):
            raise TimeoutError(
                f"{what} was not made within `timeout` = {timeout:g} s: a process that had "
                f"arrived has left (this is process {self._index} of {self._count}, host "
                f"{self._hostname}). Read the output of the others, or raise `timeout`."
            )
        return comm

    @contextmanager
    def _begin(
        self, kind: str, what: str, value: Any, timeout: float
    ) -> Iterator[tuple[Message, float]]:
        """One operation at a time; gives its message and its deadline."""
        deadline = time.monotonic() + check_timeout(timeout)
        self._check_thread()
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError(
                f"The {kind} of {what} ended after `timeout` = {timeout:g} s: another thread of "
                f"process {self._index} is in an operation of this group. Give each thread its "
                "own `MPIGroup`."
            )
        try:
            for pair in [pair for pair in self._pending if pair[0].Test()]:
                self._pending.remove(pair)  # the thread of a mailbox may add to them meanwhile
            mine = Message(self._operation, kind, what, value)
            self._operation += 1
            yield mine, deadline
        finally:
            self._lock.release()

    def _check_thread(self) -> None:
        mpi = self._mpi
        if mpi.Query_thread() < mpi.THREAD_MULTIPLE and not mpi.Is_thread_main():
            raise RuntimeError(
                f"`MPIGroup` needs `MPI_THREAD_MULTIPLE` (level {mpi.THREAD_MULTIPLE}) outside "
                f"MPI's main thread, but MPI was started with level {mpi.Query_thread()}. Remove "
                "`mpi4py.rc.threads = False` or `mpi4py.rc.thread_level = ...` from the program."
            )

    def _others(self) -> list[int]:
        return list(range(1, self._count))

    def _send(self, text: str, receivers: Sequence[int], deadline: float) -> list[int]:
        """Send to some processes; returns those that did not take it before the deadline."""
        data = text.encode()
        requests = {
            index: self._comm.Isend([data, self._mpi.BYTE], dest=index, tag=_TAG)
            for index in receivers
        }
        _poll(lambda: all([request.Test() for request in requests.values()]), deadline)
        late = [index for index, request in requests.items() if not request.Test()]
        self._pending += [(requests[index], data) for index in late]
        return late

    def _hear(self, mine: Message, timeout: float, deadline: float) -> Message:
        """The message of process 0."""
        messages = self._collect(mine, [0], deadline)
        if not messages:
            raise self._missing(mine, timeout, [0])
        return messages[0]

    def _collect(self, mine: Message, senders: list[int], deadline: float) -> dict[int, Message]:
        """The messages of this operation that come before the deadline, by sender."""
        found: dict[int, Message] = {}

        def everybody() -> bool:
            for sender in senders:
                while (
                    sender not in found
                    and (text := self._take(self._comm, sender, deadline)) is not None
                ):
                    theirs = decode(text)
                    # An older one belongs to an operation that this process gave up.
                    if theirs.operation >= mine.operation:
                        check_same(mine, theirs, sender, self._index)
                        found[sender] = theirs
            return len(found) == len(senders)

        _poll(everybody, deadline)
        return found

    def _take(self, comm: Any, sender: int, deadline: float) -> str | None:
        """The next message of a process, None if there is none or it does not end in time."""
        status = self._mpi.Status()
        # Not `Irecv`, which would need to know the size and to be cancelled after a time limit.
        message = comm.Improbe(source=sender, tag=_TAG, status=status)
        if message is None:
            return None
        data = bytearray(status.Get_count(self._mpi.BYTE))
        request = message.Irecv([data, self._mpi.BYTE])
        if not _poll(request.Test, deadline):
            self._pending.append((request, data))
            return None
        return data.decode()

    def _missing(
        self, mine: Message, timeout: float, missing: list[int], note: str = ""
    ) -> TimeoutError:
        place = (self._index, self._count)
        return missing_error(mine, timeout, missing, place, self._hosts, note)

    def __repr__(self) -> str:
        return f"MPIGroup(process {self._index} of {self._count}, launcher={self._launcher!r})"


def _poll(done: Callable[[], bool], deadline: float, longest: float = 0.002) -> bool:
    """Ask until the answer is yes or time is up, less and less often."""
    pause = 0.0
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause + 0.00005, longest)
    return True
