"""Heartbeats and the status that process 0 publishes. Pure."""

import json
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple, final

# Messages of errors that a process gets because another process has ended.
_CONSEQUENCE = re.compile(
    r"\b(gloo|nccl|rccl|unavailable|deadline_exceeded|aborted|connection (closed|reset)|socket)\b",
    re.IGNORECASE,
)
# Heartbeats of all per second; the longest interval, as JAX aborts 6 s after the service was lost.
_MAX_HEARTBEATS = 100.0
_MAX_INTERVAL = 4.0


@final
class Timing(NamedTuple):
    """How often heartbeats are sent and how long one is valid, in seconds.

    Attributes:
        interval: time between two heartbeats.
        timeout: a process without a heartbeat for this long is unresponsive.
        give_up: a process that has finished waits this long for an unresponsive one.
    """

    interval: float
    timeout: float
    give_up: float


def choose_timing(jax_timeout: float, process_count: int) -> Timing:
    """The timing that fits JAX's `heartbeat_timeout_seconds`.

    JAX ends all processes between a half and the whole of its timeout after the last heartbeat that
    it got, so an unresponsive process is reported before that.
    """
    interval = min(max(1.0, process_count / _MAX_HEARTBEATS), _MAX_INTERVAL)
    timeout = max(0.3 * jax_timeout, 3 * interval)
    return Timing(interval, timeout, 1.5 * timeout)


@final
class Heartbeat(NamedTuple):
    """The last heartbeat of a process: its number, and when it was received."""

    number: int
    time: float


def receive(
    heartbeats: Mapping[int, Heartbeat], numbers: Mapping[int, int], now: float
) -> dict[int, Heartbeat]:
    """Update heartbeats by numbers read at `now`. An unchanged number is not a new heartbeat."""
    advanced = {
        process: Heartbeat(number, now)
        for process, number in numbers.items()
        if process not in heartbeats or heartbeats[process].number != number
    }
    return {**heartbeats, **advanced}


def overdue(
    heartbeats: Mapping[int, Heartbeat], excluded: Collection[int], now: float, timeout: float
) -> dict[int, float]:
    """Seconds since the last heartbeat, of the processes for which that is `timeout` or more."""
    return {
        process: now - heartbeat.time
        for process, heartbeat in heartbeats.items()
        if process not in excluded and now - heartbeat.time >= timeout
    }


@final
class Status(NamedTuple):
    """What process 0 knows and publishes for all processes.

    Attributes:
        number: number of this status; it is the heartbeat of process 0.
        hosts: host name of process 0 and of each process named below.
        unresponsive: seconds without a heartbeat, by process.
        failed: why a process has ended, by process.
    """

    number: int
    hosts: Mapping[int, str]
    unresponsive: Mapping[int, float]
    failed: Mapping[int, str]


def encode_status(status: Status) -> str:
    return json.dumps(status)


def decode_status(text: str) -> Status:
    number, *tables = json.loads(text)
    # JSON has made texts of the process indices.
    return Status(number, *({int(key): value for key, value in t.items()} for t in tables))


def is_consequence(reason: str) -> bool:
    """Whether an error reads as if the failure of another process had caused it."""
    return _CONSEQUENCE.search(reason) is not None
