"""Joins the launch, with every wait under a timeout."""

import contextlib
import faulthandler
import logging
import logging.handlers
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

from lerax_dist.cluster import Launch, ProcessGroup, initialize, rendezvous_address

# Seconds after the timeout of `initialize` until the watchdog ends the process. JAX ends it 5 s
# after that timeout, by a SIGABRT without a message.
_GRACE = 3.0
_PRINT_AFTER = (
    "import select, sys, time\n"
    "if not select.select([0], [], [], max(float(sys.argv[1]) - time.monotonic(), 0))[0]:\n"
    "    (sys.stdout if sys.argv[2] == 'out' else sys.stderr).write(sys.argv[3] + '\\n')\n"
)


@final
@dataclass(frozen=True)
class Joined:
    """The result of joining."""

    group: ProcessGroup  # all processes
    coordinator: str | None  # "host:port" of the coordinator; `None` if it was not logged
    notes: list[str]  # warnings that were logged


def join(
    launch: Launch, environ: Mapping[str, str], timeout: float, message: tuple[str, str]
) -> Joined:
    """Join all processes of a launch.

    Args:
        launch: launch of this process.
        environ: its environment variables.
        timeout: longest wait in seconds.
        message: "out" or "err", and what is printed there if neither MPI nor JAX returns; then the
            process ends with status 1.

    Raises:
        ValueError: see `initialize`.
        RuntimeError: see `initialize`.
        TimeoutError: processes did not arrive; names them.
        OSError: process 0 cannot listen.
    """
    # At a rendezvous process 0 may start to wait when the others have waited for a while.
    rounds = 1 if rendezvous_address(launch, environ) is None else 2
    with _captured_log() as records, _watchdog(rounds * timeout + _GRACE, *message):
        group = initialize(timeout=timeout)
    infos = [record.getMessage() for record in records if record.levelno == logging.INFO]
    # The last line that `initialize` logs ends in the address, if it knows that.
    _, found, coordinator = "".join(infos[-1:]).rpartition(", coordinator ")
    notes = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    return Joined(group, coordinator.rstrip(".") if found else None, notes)


@contextlib.contextmanager
def _captured_log() -> Iterator[list[logging.LogRecord]]:
    """The records that lerax_dist logs while the block runs; they are not printed."""
    log = logging.getLogger("lerax_dist")
    handler = logging.handlers.BufferingHandler(sys.maxsize)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


@contextlib.contextmanager
def _watchdog(limit: float, stream: str, message: str) -> Iterator[None]:
    """Print a message and end the process if the block takes longer than `limit` seconds.

    A thread cannot do this: `MPI_Init` waits for the other processes while it holds Python's lock.
    So a second process prints, and faulthandler's thread, which needs no lock, ends this one.
    """
    # A moment, not a duration: the second process may start slowly.
    deadline = str(time.monotonic() + limit)
    printer = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PRINT_AFTER, deadline, stream, message],
        stdin=subprocess.PIPE,
        stdout=sys.stdout,  # its file can be another than the output of the process
    )
    assert printer.stdin is not None
    with open(os.devnull, "w") as null:
        faulthandler.dump_traceback_later(limit + 1.0, exit=True, file=null)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            printer.stdin.close()
            printer.wait()
