"""Sends rows from the devices: at once, one iteration later, or several in one callback.

On a CPU the mean of a row is in the branch that logs it, or that sends a buffer: a collective costs
more than a branch there. On other platforms it is in every iteration: XLA then puts it into the
all-reduce of the gradients, if there is one, and the branch has nothing but the callback in it.

Body of a message of rows: how many there are | their iterations | their vectors as int32.
"""

import dataclasses
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Self, final

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from lerax_dist._protocol import AbstractCallbackState, EmptyCallbackState
from lerax_dist._schema import HostCallback, Schema
from lerax_dist.device._axes import Axes, find_axes, platform_of
from lerax_dist.device._callback import CHUNK, send
from lerax_dist.device._members import Rows, transfer
from lerax_dist.device._pack import check_metrics, merge, pack
from lerax_dist.device._step_state import Step, split_step

# Numbers that a buffer has room for in each of its rows, and in all at least (64 KiB).
_NUMBERS_A_ROW = 256
_MIN_NUMBERS = 16_384


@final
class Buffer(AbstractCallbackState):
    """State of a `LoggingCallback` with `rows_per_transfer`: rows of this device, not sent yet.

    Attributes:
        rows: vectors of the rows, one after the other, not reduced yet.
        iterations: number of the iteration of each.
        count: how many there are.
    """

    rows: Float[Array, " capacity"]
    iterations: Int[Array, " rows"]
    count: Int[Array, ""]

    def room(self, size: int) -> int:
        """How many rows of `size` numbers are sent together; 0 if there is no room for one."""
        return min(self.iterations.shape[0], self.rows.shape[0] // size)

    def append(self, vector: Float[Array, " n"], iteration: Int[Array, ""], axes: Axes) -> Self:
        """The buffer with one more row."""
        vector = axes.vary_all(vector.astype(self.rows.dtype))
        rows = lax.dynamic_update_slice(self.rows, vector, (self.count * vector.shape[0],))
        iteration = axes.vary_all(iteration)
        iterations = lax.dynamic_update_index_in_dim(self.iterations, iteration, self.count, 0)
        return type(self)(rows, iterations, self.count + 1)

    def cleared(self, when: Bool[Array, ""]) -> Self:
        """The buffer without its rows if `when`."""
        count = jnp.where(when, jnp.zeros_like(self.count), self.count)
        return type(self)(self.rows, self.iterations, count)


# Of a callback: nothing, or buffered rows (see `rows_per_transfer`).
State = EmptyCallbackState | Buffer


@final
class RowSender:
    """How the rows of one logger are sent from the devices. Equal only to itself.

    All of it happens while tracing. What it remembers between traces is the schema of the rows in
    the buffer, since the trace that flushes them need not be the one that recorded them.

    Attributes:
        members: how the rows of several members are sent.
    """

    def __init__(
        self,
        make_callback: Callable[[Schema, int], HostCallback],
        *,
        is_first: bool,
        axis_name: str | tuple[str, ...] | None = None,
        member_axes: str | tuple[str, ...] | None = None,
        members: str = "band",
        log_interval: int = 1,
        rows_per_transfer: int = 1,
        delay: bool = False,
    ) -> None:
        """
        Args:
            make_callback: makes what takes the messages: `Run.row_callback` of the run.
            is_first: whether the first device of this program is the first of the run.
            axis_name: axes to reduce over; `None` for all manual ones.
            member_axes: manual axes that hold members.
            members: `"band"` or `"each"`, see `LoggingCallback`.
            log_interval: iterations whose number is a multiple of this are logged.
            rows_per_transfer: how many rows are sent together.
            delay: whether rows are merged one iteration later.
        """
        # Weak: JAX's caches of what ran outside of `jit` keep this, but must not keep the run.
        self._make_callback = weakref.WeakMethod(make_callback)
        self._axis_name = axis_name
        self._member_axes = member_axes
        self.members = members
        self._log_interval = log_interval
        self._rows_per_transfer = rows_per_transfer
        self._delay = delay
        self._is_first = is_first
        self._traced = False
        self._buffered: Schema | None = None
        # Whether its rows are merged.
        self._is_merged = False
        self._flushed = False
        self._initial_count: Callable[[], Array | None] = lambda: None

    def axes(self) -> Axes:
        """The axes in scope."""
        return find_axes(self._axis_name, self._member_axes)

    def initial(self) -> State:
        """The state at the start: an empty buffer, unless each row is sent at once."""
        rows = self._rows_per_transfer
        if rows == 1 and not self._delay:
            return EmptyCallbackState()
        axes = self.axes()
        buffer = Buffer(
            axes.vary_all(jnp.zeros(max(_MIN_NUMBERS, rows * _NUMBERS_A_ROW), float)),
            axes.vary_all(jnp.zeros(rows, jnp.int32)),
            axes.vary_all(jnp.zeros((), jnp.int32)),
        )
        self._initial_count = weakref.ref(buffer.count)
        return buffer

    def _buffer_in(self, state: Any) -> Buffer | None:
        """The buffer in the state of a callback, if it has one."""
        if (self._rows_per_transfer > 1 or self._delay) and not isinstance(state, Buffer):
            raise ValueError(
                f"`state` must be what `reset` returned, since {self._setting} holds rows in it, "
                f"got {state!r}. Carry it from `on_iteration` to `on_iteration`."
            )
        return state if isinstance(state, Buffer) else None

    @property
    def _setting(self) -> str:
        """The argument for which rows are buffered, for messages."""
        return "`delay=True`" if self._delay else f"`rows_per_transfer={self._rows_per_transfer}`"

    def unsent(self) -> str | None:
        """What to report when the run is closed, if rows may still be buffered on the devices."""
        if self._buffered is None or self._flushed:
            return None
        rows = max(self._rows_per_transfer - 1, 1)
        return (
            f"up to {rows} rows are still buffered on the devices ({self._setting}): call "
            "`on_training_end`, or `flush_state`, after the last iteration"
        )

    def log(
        self,
        state: Any,
        metrics: Mapping[str, Any],
        step_state: Any,
        iteration: Int[Array, ""],
    ) -> Any:
        """Log the row of an iteration, if it is one to log.

        On iterations that are not logged there is no callback, and on a CPU no collective.

        Args:
            state: state of the callback; the result is the new one.
            metrics: flat name to scalar or partial of this device.
            step_state: step states of this device's environments; `None` if nothing counts steps:
                then the step is the number of the iteration.
            iteration: number of the iteration.
        """
        buffer = self._buffer_in(state)
        axes = self.axes()
        # Before the branch, whose own errors would hide these.
        metrics = check_metrics(metrics)
        step = split_step(iteration)[0] if step_state is None else None
        due = iteration % self._log_interval == 0

        def row() -> tuple[Schema, Array]:
            self._traced = True
            is_first = self._is_first
            packed = pack(metrics, axes, step_state=step_state, step=step, is_first=is_first)
            return packed[0], lax.stop_gradient(packed[1])

        if buffer is not None and self._delay:
            return self._log_later(buffer, *row(), due, iteration, axes)
        early = None
        if platform_of((metrics, step_state, iteration)) != "cpu":
            early = merge(*row(), axes)
            axes = axes._replace(reduced=())
        buffered: Schema | None = None

        def record(buffer: Buffer | None) -> Buffer | None:
            nonlocal buffered
            schema, vector = early or row()
            if buffer is not None:
                if schema.slots:
                    vector = jnp.concatenate(schema.without_slots(vector, jnp))
                    schema = dataclasses.replace(schema, slots=0)
                _check_buffer(buffer, axes, schema.devices, is_merged=early is not None)
                if buffer.room(schema.size):
                    buffered = self._remember(schema, axes)
                    return buffer.append(vector, iteration, axes)
            rows = Rows(due, jnp.ones((), jnp.int32), iteration[None], vector[None])
            self._send(schema, rows, axes, is_due=self._log_interval == 1)
            return buffer

        if self._log_interval == 1 or early and buffer is None:
            buffer = record(buffer)
        else:
            buffer = lax.cond(due, record, lambda buffer: buffer, buffer)
        if buffer is None:
            return state
        if buffered is None:
            return buffer
        full = buffer.count == buffer.room(buffered.size)
        self._send_buffer(full, buffered, buffer, axes)
        return buffer.cleared(full)

    def _log_later(
        self,
        buffer: Buffer,
        schema: Schema,
        vector: Float[Array, " n"],
        due: Bool[Array, ""],
        iteration: Int[Array, ""],
        axes: Axes,
    ) -> Buffer:
        """Log the row in the buffer, and keep this one for the next iteration."""
        _check_buffer(buffer, axes, schema.devices)
        if not buffer.room(schema.size):
            raise ValueError(
                f"`delay=True` keeps a row of at most {buffer.rows.shape[0]} numbers, got "
                f"{schema.size}. Log fewer metrics, or use `delay=False`."
            )
        self._remember(schema, axes)
        merged, kept = merge(schema, buffer.rows[: schema.size], axes)
        rows = Rows(buffer.count > 0, buffer.count, buffer.iterations, kept[None])
        self._send(merged, rows, axes._replace(reduced=()), is_due=False)
        buffer = buffer.cleared(jnp.asarray(True)).append(vector, iteration, axes)
        return buffer.cleared(~due)

    def emit(
        self, metrics: Mapping[str, Any], step: Step, axis_name: str | tuple[str, ...] | None
    ) -> None:
        """Send a row that is known by its step.

        Args:
            metrics: flat name to scalar or partial of this device.
            step: its step.
            axis_name: axes to reduce over; `None` for those of this sender.
        """
        axes = find_axes(axis_name or self._axis_name, self._member_axes)
        limbs, unit = split_step(step)
        schema, vector = pack(check_metrics(metrics), axes, step=limbs, is_first=self._is_first)
        schema = dataclasses.replace(schema, unit=unit)
        # Its order is that of the steps, below 2**31.
        shifts = jnp.arange(4, dtype=jnp.int32) * 8
        low = limbs[:4].astype(jnp.int32) << shifts
        number = jnp.sum(low, dtype=jnp.int32) & jnp.iinfo(jnp.int32).max
        rows = Rows(jnp.asarray(True), jnp.ones((), jnp.int32), number[None], vector[None])
        self._send(schema, rows, axes, is_due=True)

    def flush(self, state: Any) -> Any:
        """Send the rows in the buffer, if there are any, and empty it; a collective."""
        buffer, schema = self._buffer_in(state), self._buffered
        if buffer is None:
            return state
        if schema is None:
            if not (self._traced or self._is_empty(buffer)):
                raise ValueError(
                    "`flush_state` was traced before `on_iteration`, so the meaning of the rows in "
                    "`state` is unknown. Call `flush_state` after `on_iteration`: in the body of a "
                    "loop at the end of an iteration, not at the start of the next; elsewhere, "
                    "trace one step first with `jax.eval_shape(step, ...)`."
                )
            return state
        axes = self.axes()
        is_merged = self._is_merged
        _check_buffer(buffer, axes, schema.devices, is_merged=is_merged)
        self._send_buffer(
            buffer.count > 0, schema, buffer, axes._replace(reduced=()) if is_merged else axes
        )
        self._flushed = True
        return buffer.cleared(jnp.asarray(True))

    def _is_empty(self, buffer: Buffer) -> bool:
        """Whether the trace, or the array itself, shows that the buffer holds no row."""
        count = buffer.count
        if isinstance(count, Tracer):
            return count is self._initial_count()
        return int(count) == 0

    def _remember(self, schema: Schema, axes: Axes) -> Schema:
        self._is_merged = not axes.reduced
        known = self._buffered
        if known is not None and known.devices != schema.devices:
            raise ValueError(
                "the steps of a logger with `rows_per_transfer` above 1 must all run over the same "
                f"number of devices, got {schema.devices} after {known.devices}: their rows share "
                "one buffer. Use a logger for each, or `rows_per_transfer=1`."
            )
        if known is not None and dataclasses.replace(known, dtype=schema.dtype) != schema:
            raise ValueError(
                f"`training_log` must hold the same metrics in every step of a logger with "
                f"`rows_per_transfer` above 1, got {', '.join(schema.names)} after "
                f"{', '.join(known.names)}: their rows share one buffer. Use a logger for each, or "
                "`rows_per_transfer=1`."
            )
        self._buffered = schema
        return schema

    def _send_buffer(
        self, when: Bool[Array, ""], schema: Schema, buffer: Buffer, axes: Axes
    ) -> None:
        room = buffer.room(schema.size)

        def go(buffer: Buffer) -> None:
            vectors = buffer.rows[: room * schema.size].reshape(room, schema.size)
            rows = Rows(when, buffer.count, buffer.iterations[:room], vectors)
            # Around a collective there is a branch.
            self._send(schema, rows, axes, is_due=bool(axes.reduced))

        if axes.reduced:
            lax.cond(when, go, lambda buffer: None, buffer)
        else:
            go(buffer)

    def _send(self, schema: Schema, rows: Rows, axes: Axes, *, is_due: bool) -> None:
        """Merge rows, if `axes` reduces over any, and send them: if `rows.when`, unless `is_due`
        says that this is in a branch where they are."""

        def send_rows(
            schema: Schema, when: Array | None, iterations: Array, count: Array, vectors: Array
        ) -> None:
            # That of the buffer, if `reset` was traced with another precision than this.
            schema = dataclasses.replace(schema, dtype=np.dtype(vectors.dtype))
            # As int32, so that no part of the transfer can round an integer beside it.
            bits = lax.bitcast_convert_type(vectors, jnp.int32).ravel()
            head = iterations[:1]
            if schema.unit is not None and bits.size + 2 >= CHUNK:
                # Steps may come again, and this tells the parts of one message from another's.
                odd = 2 * jnp.arange(bits.size, dtype=jnp.int32) + 1
                head += jnp.sum(bits * odd, dtype=jnp.int32)
            make_callback = self._make_callback()
            if make_callback is not None:
                deliver = make_callback(schema, self._log_interval)
                body = [count[None], iterations, bits]
                send(deliver, head, body, axes.manual, None if is_due else when)

        transfer(send_rows, schema, rows, axes, self.members)


def send_start(
    make_callback: Callable[[bool], HostCallback],
    iteration: Int[Array, ""],
    total: Any,
    state: Any,
    axes: Axes,
) -> None:
    """Send the iterations done before, and the steps to come if only the program knows (else 0).

    Args:
        make_callback: makes what takes them, given whether they are those of one member of several.
        iteration: iterations done before.
        total: steps to come.
        state: pytree of what differs between the members of a `vmap`, if there are any.
        axes: axes in scope.
    """

    def send_of(are_members: bool, iteration: Array, total: Array) -> tuple[()]:
        send(make_callback(are_members), iteration[None], [total[None]], axes.manual)
        return ()

    send_one = custom_vmap(lambda own, state: send_of(bool(axes.members), *own))
    send_members = custom_vmap(lambda own: send_of(True, *own))

    # Of the member that has most before it.
    @send_one.def_vmap
    @send_members.def_vmap
    def _(size: int, is_mapped: Any, own: Any, state: Any = None) -> tuple[tuple[()], tuple[()]]:
        send_members(tuple(jnp.max(number) for number in own))
        return (), ()

    own = (iteration, jnp.asarray(total, jnp.int32))
    state = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    if any(isinstance(leaf, Tracer) for leaf in (*own, *state)):
        send_one(own, jax.tree.map(lax.stop_gradient, state))
    else:
        send_of(bool(axes.members), *own)


def _check_buffer(buffer: Buffer, axes: Axes, devices: int, is_merged: bool = False) -> None:
    """Check that the rows of a buffer are of this device, and are to be reduced over `devices`: it
    was made neither outside of the `shard_map` that uses it, nor taken out of it."""
    # Without type checks (`check_vma=False`) only the number of devices shows it.
    is_here = axes.varies_over_all(buffer.rows)
    is_here &= is_merged or axes.size(axes.reduced) == devices
    if buffer.rows.ndim != 1 or not is_here:
        raise ValueError(
            "`state` of a logger with `rows_per_transfer` above 1 holds rows of each device, got "
            f"shape {buffer.rows.shape} where the manual axes {axes.manual} are in scope. Call "
            "`reset`, `on_iteration` and `flush_state` (or `on_training_end`) all inside the same "
            "`shard_map`, `pmap` or `vmap`, or all outside of any."
        )
