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
    joined_address,
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
    coordinator: str | None  # "host:port"; `None` if this is a single process
    notes: list[str]  # warnings that were logged


def join(
    launch: Launch,
    environ: MutableMapping[str, str],
    timeout: float,
    stream: Literal["stdout", "stderr"],
    message: str,
) -> Joined:
    """Join all processes of a launch, as a doctor. Raises what `initialize` does.

    If neither MPI nor JAX returns, `message` is printed and the process ends with status 1.
    """
    # A training that is just starting at the same address must not take this for its process.
    environ[LAUNCH_ID] = f"{environ.get(LAUNCH_ID, '')} lerax-dist doctor".strip()
    # At a rendezvous process 0 may start to wait when the others have waited for a while.
    rounds = 1 if rendezvous_address(launch, environ) is None else 2
    with _captured_log() as records, watchdog(rounds * timeout + _GRACE, message, stream=stream):
        group = initialize(timeout=timeout)
    return Joined(group, joined_address() or None, [record.getMessage() for record in records])


@contextlib.contextmanager
def _captured_log() -> Iterator[list[logging.LogRecord]]:
    """The warnings that lerax_dist logs while the block runs; they are not printed."""
    log = logging.getLogger("lerax_dist")
    handler = logging.handlers.BufferingHandler(sys.maxsize)
    handler.setLevel(logging.WARNING)
    propagate = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
