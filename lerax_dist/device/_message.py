"""The messages that leave the devices: rows, alone or several at a time, and a training's start.

Body of a message of rows: how many there are | their iterations | their vectors as int32.
"""

import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._buffer import Buffer, check_buffer, empty_buffer
from lerax_dist.device._episodes import Episodes
from lerax_dist.device._merge import merge
from lerax_dist.device._pack import check_scalars, from_bits, share, to_bits
from lerax_dist.device._schema import Schema, Totals
from lerax_dist.device._transfer import Deliver, send


@final
class RowFormat:
    """How the host reads the rows of one message. It holds no array."""

    def __init__(self, schema: Schema, rows: int, dtype: Any) -> None:
        self.names = schema.names
        self.combine = schema.combine
        self.finish = schema.finish
        self._schema = schema
        self._rows = rows
        self._dtype = np.dtype(dtype)

    def rows(self, bodies: np.ndarray) -> list[list[tuple[int, Totals]]]:
        """For each body `(messages, n)` of a message, iteration and totals of each of its rows."""
        counts, iterations = bodies[:, 0], bodies[:, 1 : 1 + self._rows]
        vectors = from_bits(np.ascontiguousarray(bodies[:, 1 + self._rows :]), self._dtype)
        vectors = vectors.reshape(len(bodies), self._rows, -1)
        there = np.arange(self._rows) < counts[:, None]
        totals = self._schema.totals(vectors[there])
        rows = zip(iterations[there].tolist(), totals, strict=True)
        return [list(itertools.islice(rows, count)) for count in counts.tolist()]


@final
class Transfers:
    """How the rows of one logger leave the devices. Equal only to itself.

    All of it happens while tracing. What it remembers between traces is the schema of the rows that
    wait in a buffer, since the trace that flushes them need not be the one that recorded them.
    """

    def __init__(
        self,
        receive: Callable[[RowFormat, int], Deliver],
        *,
        axis_name: str | tuple[str, ...] | None,
        log_interval: int,
        rows_per_transfer: int,
        leads: bool,
    ) -> None:
        """
        Args:
            receive: makes what takes the messages, given how to read them and the distance between
                rows.
            axis_name: axes to reduce over; `None` for all manual ones.
            log_interval: iterations whose number is a multiple of this are logged.
            rows_per_transfer: how many rows ride together.
            leads: whether the first device of this program is the first of the run.
        """
        self._receive = receive
        self._axis_name = axis_name
        self._log_interval = log_interval
        self._rows_per_transfer = rows_per_transfer
        self._leads = leads
        self._schema: Schema | None = None
        self._traced = False
        self._flushes = False
        self._initial_count: Callable[[], Array | None] = lambda: None

    def initial(self) -> Buffer | None:
        """The empty buffer; `None` if rows wait for no others."""
        if self._rows_per_transfer == 1:
            return None
        buffer = empty_buffer(self._rows_per_transfer, find_axes(self._axis_name))
        self._initial_count = weakref.ref(buffer.count)
        return buffer

    def check(self, state: Any) -> Buffer | None:
        """The buffer in the state of a callback.

        Raises:
            ValueError: it should hold one and does not.
        """
        if self._rows_per_transfer > 1 and not isinstance(state, Buffer):
            raise ValueError(
                f"`state` must be what `reset` gave, with `rows_per_transfer` = "
                f"{self._rows_per_transfer}, got {state!r}. Carry it from `on_iteration` to "
                "`on_iteration`."
            )
        return state if isinstance(state, Buffer) else None

    def unsent(self) -> str | None:
        """What to say when the run is closed, if rows may still wait on the devices."""
        if self._schema is None or self._flushes:
            return None
        return (
            f"up to {self._rows_per_transfer - 1} rows (`rows_per_transfer`) still wait on the "
            "devices: call `on_training_end`, or `flush_state`, after the last iteration"
        )

    def row(
        self,
        buffer: Buffer | None,
        scalars: Mapping[str, Any],
        step_state: Any,
        iteration: Int[Array, ""],
    ) -> Buffer | None:
        """Record the row of an iteration, if it is one to log, and send what is due.

        On iterations that are not logged there is neither a collective nor a callback.

        Args:
            buffer: rows that wait.
            scalars: flat name to scalar or partial, this device's share.
            step_state: step states of this device's environments.
            iteration: number of the iteration.
        """
        axes = find_axes(self._axis_name)
        # Before the branch, whose own errors would hide these.
        scalars = check_scalars(scalars)
        due = iteration % self._log_interval == 0
        schema, vector = self._share(scalars, axes, step_state)
        if buffer is not None:
            check_buffer(buffer, axes, schema.devices)
        self._traced = True
        if buffer is None or not buffer.rows_that_fit(schema.size):
            self._send_alone(due, scalars, axes, step_state, iteration)
            return buffer
        self._remember(schema)
        if self._log_interval > 1:
            # Of the vector above only its shape is used then: the compiler drops the rest.
            vector = lax.cond(
                due,
                lambda: axes.vary_all(self._share(scalars, axes, step_state)[1]),
                lambda: axes.vary_all(jnp.zeros(vector.shape, vector.dtype)),
            )
        buffer = buffer.record(vector, iteration, due, axes)
        full = buffer.count == buffer.rows_that_fit(schema.size)
        self._leave(full, schema, buffer, axes)
        return buffer.emptied(full)

    def flush(self, buffer: Buffer | None) -> Buffer | None:
        """Send the rows that wait, if there are any. Once in a program: it is a collective.

        Raises:
            ValueError: rows may wait, and no row was traced that says what they mean.
        """
        if buffer is None:
            return None
        if self._schema is None:
            if not (self._traced or self._is_empty(buffer)):
                raise ValueError(
                    "`state` may hold rows that wait, and what they mean is known only once "
                    "`on_iteration` of this logger has been traced. Call it before `flush_state`: "
                    "in the body of a loop, flush behind `on_iteration`, at the end of an "
                    "iteration and not at the start of the next; elsewhere, trace a step first "
                    "with `jax.eval_shape(step, ...)`."
                )
            return buffer
        axes = find_axes(self._axis_name)
        check_buffer(buffer, axes, self._schema.devices)
        self._leave(buffer.count > 0, self._schema, buffer, axes)
        self._flushes = True
        return buffer.emptied(jnp.asarray(True))

    def _is_empty(self, buffer: Buffer) -> bool:
        """Whether the trace, or the array itself, tells that no row waits."""
        count = buffer.count
        if isinstance(count, Tracer):
            return count is self._initial_count()
        return int(count) == 0

    def _share(self, scalars: Any, axes: Axes, step_state: Any) -> tuple[Schema, Array]:
        partials = {"episode/": Episodes(step_state)}
        return share(scalars, axes, partials=partials, step_state=step_state, leads=self._leads)

    def _send_alone(
        self, due: Bool[Array, ""], scalars: Any, axes: Axes, step_state: Any, iteration: Array
    ) -> None:
        def go() -> None:
            schema, vector = self._share(scalars, axes, step_state)
            self._send(schema, vector[None], iteration[None], jnp.ones((), jnp.int32), axes)

        if self._log_interval == 1:
            go()
        else:
            lax.cond(due, go, lambda: None)

    def _remember(self, schema: Schema) -> None:
        known = self._schema
        if known is not None and known.devices != schema.devices:
            raise ValueError(
                "the steps of a logger with `rows_per_transfer` above 1 must all run over the same "
                f"number of devices, got {schema.devices} after {known.devices}: their rows would "
                "wait in one buffer. Use a logger for each, or `rows_per_transfer=1`."
            )
        if known is not None and known.layout != schema.layout:
            raise ValueError(
                f"`training_log` must hold the same metrics in every step of a logger with "
                f"`rows_per_transfer` above 1, got {', '.join(schema.names)} after "
                f"{', '.join(known.names)}: their rows would wait in one buffer. Use a logger for "
                "each, or `rows_per_transfer=1`."
            )
        self._schema = schema

    def _leave(self, when: Bool[Array, ""], schema: Schema, buffer: Buffer, axes: Axes) -> None:
        rows = buffer.rows_that_fit(schema.size)

        def go(buffer: Buffer) -> None:
            vectors = buffer.rows[: rows * schema.size].reshape(rows, schema.size)
            self._send(schema, vectors, buffer.iterations[:rows], buffer.count, axes)

        lax.cond(when, go, lambda buffer: None, buffer)

    def _send(
        self,
        schema: Schema,
        vectors: Float[Array, "k n"],
        iterations: Int[Array, " k"],
        count: Int[Array, ""],
        axes: Axes,
    ) -> None:
        vectors = merge(schema, vectors, axes)
        row_format = RowFormat(schema, len(iterations), vectors.dtype)
        deliver = self._receive(row_format, self._log_interval)
        body = jnp.concatenate([count[None], iterations, to_bits(vectors)])
        send(deliver, iterations[:1], body, axes.manual)


def send_start(deliver: Deliver, iteration: Int[Array, ""], total: Any) -> None:
    """Tell the host that a training starts.

    Args:
        deliver: takes the payload: the iteration, then the total.
        iteration: iterations done before.
        total: steps that the training will take, if only the program knows; else 0.
    """
    body = jnp.asarray(total, jnp.int32)[None]
    send(deliver, iteration[None], body, find_axes(None).manual)
