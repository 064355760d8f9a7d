"""Joins the launch, with every wait under a timeout."""

import contextlib
import logging
import logging.handlers
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Literal, final

from lerax_dist.cluster import (
    LAUNCH_ID,
    Launch,
    ProcessGroup,
    initialize,
    rendezvous_address,
    watchdog,
)

# Seconds after the timeout of `initialize` until the watchdog ends the process. JAX ends it 5 s
# after that timeout, by a SIGABRT without a message.
_GRACE = 3.0


@final
@dataclass(frozen=True)
class Joined:
    """The result of joining."""

    group: ProcessGroup  # all processes
    coordinator: str | None  # "host:port" of the coordinator; `None` if it was not logged
    notes: list[str]  # warnings that were logged


def join(
    launch: Launch,
    environ: MutableMapping[str, str],
    timeout: float,
    message: tuple[Literal["stdout", "stderr"], str],
) -> Joined:
    """Join all processes of a launch.

    Args:
        launch: launch of this process.
        environ: its environment variables; marked as those of a doctor.
        timeout: longest wait in seconds.
        message: where and what is printed if neither MPI nor JAX returns; then the process ends
            with status 1.

    Raises:
        ValueError: see `initialize`.
        RuntimeError: see `initialize`.
        TimeoutError: processes did not arrive; names them.
        OSError: process 0 cannot listen.
    """
    # A training that is just starting at the same address must not take this for its process.
    environ[LAUNCH_ID] = f"{environ.get(LAUNCH_ID, '')} lerax-dist doctor".strip()
    # At a rendezvous process 0 may start to wait when the others have waited for a while.
    rounds = 1 if rendezvous_address(launch, environ) is None else 2
    with _captured_log() as records, watchdog(rounds * timeout + _GRACE, *message):
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
