"""Where numbers from the devices enter the host: copied, queued, done."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.host._queue import RowQueue

Deliver = Callable[[int, int, Any], None]
HostCallback = Deliver
# Rows of one kind: names of their metrics, steps, and `(rows, metrics)` values in float64 and which
# of them there are none of yet.
Finished = tuple[tuple[str, ...], list[int], np.ndarray, np.ndarray]


class Format(Protocol):
    """How rows of one kind are merged and finished.

    Attributes:
        names: names of what is logged, by which rows of several processes are known to fit.
    """

    names: tuple[str, ...]

    def combine(self, shares: Sequence[Any]) -> Any:
        """The totals of one row of those of several processes, process 0's first."""
        ...

    def finish(self, rows: Sequence[Any]) -> Finished:
        """The rows, given their totals."""
        ...


class MessageFormat(Format, Protocol):
    """How the rows in a message from the devices are read, too."""

    def rows(self, bodies: np.ndarray) -> list[list[tuple[int, Any]]]:
        """For each body `(messages, n)` of a message, number and totals of each of its rows."""
        ...


class Packet(NamedTuple):
    """One part of a message with rows from the devices, as it came."""

    format: MessageFormat
    part: int
    parts: int
    payload: np.ndarray
    stride: int
    time: float
    clock: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A training starts.

    Attributes:
        stride: distance between the iterations that are logged.
        iteration: iterations done before.
        total_timesteps: global steps that it takes; 0 if unknown.
        total_iterations: iterations that it takes; 0 if unknown.
        hparams: hyperparameters to log, if there are any.
    """

    stride: int
    iteration: int
    total_timesteps: int
    total_iterations: int
    hparams: dict[str, Any]
    time: float
    clock: float


# The metrics of a row from a plain loop: names of all, in their order; those that are numbers
# already; and the others: names, and a vector of their values that `np.asarray` waits for.
HostMetrics = tuple[tuple[str, ...], dict[str, Any], list[tuple[tuple[str, ...], Any]]]


class HostRow(NamedTuple):
    """A row from a plain loop.

    Attributes:
        step: global step.
        metrics: what was logged.
        time: when, in seconds since the epoch.
    """

    step: int
    metrics: HostMetrics
    time: float


@final
class Sink:
    """Takes what host callbacks bring. Nothing here raises: that would kill the step."""

    def __init__(self, queue: RowQueue, failures: Failures) -> None:
        self._queue = queue
        self._failures = failures
        self._closed = False

    def close(self) -> None:
        """Take nothing more; what still comes is reported."""
        self._closed = True

    def rows(self, row_format: MessageFormat, stride: int) -> Deliver:
        """What takes the rows of one kind.

        Args:
            row_format: how the rows behind the head of a message are read.
            stride: distance between the iterations that are logged.
        """

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                begin = time.perf_counter()
                if self._closed:
                    self._failures.record(
                        "callback", "a row came after `close()`; it is not logged"
                    )
                    return
                # A copy, not a view: the runtime may reuse the buffer once this returns.
                copy = np.asarray(payload).copy()
                packet = Packet(row_format, part, parts, copy, stride, time.time(), begin)
                self._queue.put_row(packet, copy.nbytes, begin)
            except Exception as error:
                self._failures.record(
                    "callback", f"a row could not be taken over ({error!r})", error
                )

        return deliver

    def start(
        self,
        stride: int,
        total_timesteps: int | None,
        total_iterations: int,
        hparams: dict[str, Any],
    ) -> Deliver:
        """What takes the start of a training.

        Args:
            stride: distance between the iterations that are logged.
            total_timesteps: `None` if the payload holds it.
            total_iterations: 0 if unknown.
            hparams: hyperparameters to log.
        """

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                iteration, total = (int(number) for number in np.asarray(payload))
                if total_timesteps is not None:
                    total = total_timesteps
                now = (time.time(), time.perf_counter())
                self._queue.put(Start(stride, iteration, total, total_iterations, hparams, *now))
            except Exception as error:
                self._failures.record("callback", f"a start could not be taken ({error!r})", error)

        return deliver
