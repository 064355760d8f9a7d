"""Where numbers from the devices enter the host: copied, queued, done."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import HostCallback, HostMetrics, Schema
from lerax_dist.host._queue import RowQueue


class Packet(NamedTuple):
    """One part of a message with rows from the devices, as it came.

    Attributes:
        schema: what the vectors in the message mean.
        part: which part this is, from 0.
        parts: how many the message has.
        payload: number of the message | its part of the body, int32.
        stride: distance between the iterations that are logged.
        time: when it came, in seconds since the epoch.
        clock: when it came, by `time.perf_counter`.
    """

    schema: Schema
    part: int
    parts: int
    payload: np.ndarray
    stride: int
    time: float
    clock: float


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
@dataclass(frozen=True, slots=True, eq=False)
class TrainingStart:
    """A training starts.

    Attributes:
        stride: distance between the iterations that are logged.
        iteration: iterations done before.
        total_timesteps: global steps that it takes; 0 if unknown.
        total_iterations: iterations that it takes; 0 if unknown.
        hparams: hyperparameters to log, if there are any.
        time: when, in seconds since the epoch.
        clock: when, by `time.perf_counter`.
    """

    stride: int
    iteration: int
    total_timesteps: int
    total_iterations: int
    hparams: dict[str, Any]
    time: float
    clock: float


@final
class Sink:
    """Makes the host callbacks of a run. None of them raises: that would kill the step."""

    def __init__(self, queue: RowQueue, failures: Failures) -> None:
        self._queue = queue
        self._failures = failures
        self._closed = False

    def close(self) -> None:
        """Accept no more rows; those that still come are reported."""
        self._closed = True

    def rows(self, schema: Schema, stride: int) -> HostCallback:
        """What takes the rows of one schema.

        Args:
            schema: what their vectors mean.
            stride: distance between the iterations that are logged.
        """

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                begin = time.perf_counter()
                if self._closed:
                    self._failures.record("callback", "received a row after `close()`; dropped it")
                    return
                # A copy, not a view: the runtime may reuse the buffer once this returns.
                copy = np.asarray(payload).copy()
                packet = Packet(schema, part, parts, copy, stride, time.time(), begin)
                self._queue.put_row(packet, copy.nbytes, begin)
            except Exception as error:
                self._failures.record("callback", f"could not enqueue a row ({error!r})", error)

        return deliver

    def start(
        self,
        stride: int,
        total_timesteps: int | None,
        total_iterations: int,
        hparams: dict[str, Any],
        programs: int,
    ) -> HostCallback:
        """What takes the start of a training.

        Args:
            stride: distance between the iterations that are logged.
            total_timesteps: global steps of the run; `None` if the payload holds those of one
                program.
            total_iterations: 0 if unknown.
            hparams: hyperparameters to log.
            programs: how many programs the run has, each as long as this one.
        """

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                iteration, total = np.asarray(payload).tolist()
                # On the host, whose integers do not overflow.
                total = total * programs if total_timesteps is None else total_timesteps
                now = (time.time(), time.perf_counter())
                start = TrainingStart(stride, iteration, total, total_iterations, hparams, *now)
                self._queue.put(start)
            except Exception as error:
                self._failures.record(
                    "callback", f"could not enqueue the start of a training ({error!r})", error
                )

        return deliver


def drop_stray_rows(process_index: int, failures: Failures) -> HostCallback:
    """What takes rows on a process that writes none: it reports and drops them."""

    def deliver(part: int, parts: int, payload: Any) -> None:
        failures.record(
            "callback",
            f"process {process_index} received a row but only process 0 writes; dropped the row. "
            'Either each process runs its own program (pass `scope="process"`), or the mesh does '
            "not start with a device of process 0 (build it from `jax.devices()` in their order).",
        )

    return deliver


def ignore(part: int, parts: int, payload: Any) -> None:
    """A host callback of a process that has no use for it."""
