"""Rows that wait on a device until several leave together. Pure."""

from typing import Self, final

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lerax_dist._protocol import AbstractCallbackState
from lerax_dist.device._axes import Axes

# Room for a row, in numbers. Rows of up to 1,600 metrics ride by tens even so: there are 64 KiB at
# least.
_ROOM = 256
_LEAST = 16_384


@final
class Buffer(AbstractCallbackState):
    """State of a `LoggingCallback` whose rows ride together: the rows of this device that wait.

    Attributes:
        rows: vectors of the rows, one after the other, not reduced yet.
        iterations: number of the iteration of each.
        count: how many there are.
    """

    rows: Float[Array, " capacity"]
    iterations: Int[Array, " rows"]
    count: Int[Array, ""]

    def rows_that_fit(self, size: int) -> int:
        """How many rows of `size` numbers ride together: as many as asked for, if there is room;
        0 if there is not even for one."""
        return min(self.iterations.shape[0], self.rows.shape[0] // size)

    def record(
        self,
        vector: Float[Array, " n"],
        iteration: Int[Array, ""],
        due: Bool[Array, ""],
        axes: Axes,
    ) -> Self:
        """A row more, if it is `due`; else it lies where the next one will."""
        vector = axes.vary_all(vector.astype(self.rows.dtype))
        rows = lax.dynamic_update_slice(self.rows, vector, (self.count * vector.shape[0],))
        iteration = axes.vary_all(iteration)
        iterations = lax.dynamic_update_index_in_dim(self.iterations, iteration, self.count, 0)
        return type(self)(rows, iterations, self.count + axes.vary_all(due).astype(jnp.int32))

    def emptied(self, when: Bool[Array, ""]) -> Self:
        """Without its rows if `when`."""
        count = jnp.where(when, jnp.zeros_like(self.count), self.count)
        return type(self)(self.rows, self.iterations, count)


def empty_buffer(rows: int, axes: Axes) -> Buffer:
    """A buffer for `rows` rows, where `axes` are in scope."""
    return Buffer(
        axes.vary_all(jnp.zeros(max(_LEAST, rows * _ROOM), float)),
        axes.vary_all(jnp.zeros(rows, jnp.int32)),
        axes.vary_all(jnp.zeros((), jnp.int32)),
    )


def check_buffer(buffer: Buffer, axes: Axes, devices: int) -> None:
    """Check that a buffer is the one of this device.

    Args:
        buffer: the buffer.
        axes: axes in scope here.
        devices: over how many devices its rows are to be reduced.

    Raises:
        ValueError: it was made outside of the `shard_map` that uses it, or taken out of it.
    """
    # Without type checks (`check_vma=False`) only the number of devices tells.
    here = axes.varies_over_all(buffer.rows) and axes.size(axes.reduced) == devices
    if buffer.rows.ndim != 1 or not here:
        raise ValueError(
            "`state` of a logger with `rows_per_transfer` above 1 holds rows of each device, got "
            f"shape {buffer.rows.shape} where the manual axes {axes.manual} are in scope. Call "
            "`reset`, `on_iteration` and `flush_state` (or `on_training_end`) all inside the same "
            "`shard_map` or `pmap`, or all outside of any."
        )
