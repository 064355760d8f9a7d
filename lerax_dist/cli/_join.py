"""Joining the launch under the doctor's eyes: what is said meanwhile, and an end to any wait."""

import contextlib
import faulthandler
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import final

from lerax_dist.cluster import Launch, ProcessGroup, initialize, rendezvous_address

# How much later than `initialize`'s own time limit a wait is ended from outside. JAX gives up 5 s
# after it, by a SIGABRT.
_GRACE = 3.0
_WATCH = (
    "import select, sys, time\n"
    "if not select.select([0], [], [], max(float(sys.argv[1]) - time.monotonic(), 0))[0]:\n"
    "    (sys.stdout if sys.argv[2] == 'out' else sys.stderr).write(sys.argv[3] + '\\n')\n"
)


@final
class Joined:
    """What came of joining.

    Attributes:
        group: all processes.
        coordinator: "host:port" of the coordination service, as far as it was said.
        notes: warnings that came up.
    """

    def __init__(self, group: ProcessGroup, coordinator: str | None, notes: list[str]) -> None:
        self.group = group
        self.coordinator = coordinator
        self.notes = notes


def join(
    launch: Launch, environ: Mapping[str, str], timeout: float, last_words: tuple[str, str]
) -> Joined:
    """Join all processes of a launch.

    Args:
        launch: launch of this process.
        environ: its environment variables.
        timeout: longest wait in seconds.
        last_words: "out" or "err" and what to print there if neither MPI nor JAX comes back; then
            the process ends with status 1.

    Raises:
        ValueError: see `initialize`.
        RuntimeError: likewise.
        TimeoutError: processes did not arrive; names them.
        OSError: process 0 cannot listen.
    """
    # At a roll call process 0 may start to wait when the others have done so for a while.
    rounds = 1 if rendezvous_address(launch, environ) is None else 2
    with _heard() as records, _ended_if_stuck(rounds * timeout + _GRACE, *last_words):
        group = initialize(timeout=timeout)
    told = [record.getMessage() for record in records if record.levelno == logging.INFO]
    # `initialize` promises a line that ends in this.
    _, found, coordinator = "".join(told[-1:]).rpartition(", coordinator ")
    notes = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    return Joined(group, coordinator.rstrip(".") if found else None, notes)


@contextlib.contextmanager
def _heard() -> Iterator[list[logging.LogRecord]]:
    """What lerax_dist says while the block runs; it is kept from the error output."""
    log = logging.getLogger("lerax_dist")
    records: list[logging.LogRecord] = []
    ear = _Ear(records)
    level, propagate = log.level, log.propagate
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield records
    finally:
        log.removeHandler(ear)
        log.setLevel(level)
        log.propagate = propagate


@final
class _Ear(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextlib.contextmanager
def _ended_if_stuck(limit: float, stream: str, words: str) -> Iterator[None]:
    """End the process if the block takes too long.

    No thread could do it: `MPI_Init` waits for the others with Python's lock held. So a second
    process has the last word, and faulthandler's own thread, which needs no lock, ends this one.
    """
    # A moment and no length: the second process may take its time to start.
    deadline = str(time.monotonic() + limit)
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, deadline, stream, words],
        stdin=subprocess.PIPE,
        stdout=sys.stdout,  # the file behind it can be another than this process's own output
    )
    assert watch.stdin is not None
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(limit + 1.0, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            watch.stdin.close()
            watch.wait()
