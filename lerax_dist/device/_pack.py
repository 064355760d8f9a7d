"""All metrics of a step in one vector, its merging over devices, and `reduce`."""

import functools as ft
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, final

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist._metric_names import flatten
from lerax_dist._schema import PartialSpec, Schema
from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._partials import AbstractPartial, as_scalar
from lerax_dist.device._step_state import Episodes, split_steps

# Scalars that one kernel stacks; more make it longer, fewer make more of them.
_SCALARS_A_KERNEL = 16
# How many numbers of a row the slots of all devices may take: 512 bytes.
_MAX_IN_SLOTS = 128


def pack(
    metrics: Mapping[str, Any],
    axes: Axes,
    *,
    step_state: Any = None,
    step: Float[Array, " limb"] | None = None,
    is_first: bool = True,
) -> tuple[Schema, Float[Array, " n"]]:
    """This device's part of a row, and what it means. No collective.

    Args:
        metrics: flat name to scalar or partial, see `check_metrics`.
        axes: axes that it is going to be reduced over.
        step_state: step states, whose `step` is summed exactly and whose episode statistics are
            added; `None` for none.
        step: limbs of the step, where no step states count it: the first device's. `None` as well
            for a row without a step.
        is_first: whether the first device of this program is the first of the run.
    """
    dtype = jnp.zeros((), float).dtype
    plain = {
        name: value for name, value in metrics.items() if not isinstance(value, AbstractPartial)
    }
    partials = {
        name: value for name, value in metrics.items() if isinstance(value, AbstractPartial)
    }
    spans = {name: axes.spanned_by(partial) for name, partial in partials.items()}
    limbs: list[Array] = []
    step_devices = None
    if step_state is not None:
        partials["episode/"] = Episodes(step_state)
        spans["episode/"] = axes.spanned_by(step_state)
        limbs = [split_steps(step_state.step)]
        step_devices = axes.size(spans["episode/"])
    elif step is not None:
        is_source = lax.axis_index(axes.reduced) == 0 if axes.reduced else jnp.asarray(True)
        limbs = [jnp.where(is_source, step, 0.0)]
        step_devices = axes.size(axes.reduced)

    specs, sums, maxima = [], [], []
    for name, partial in partials.items():
        span = spans[name]
        # Along an axis where the partial is the same everywhere each device counts as the first.
        first = lax.axis_index(span) == 0 if span else jnp.asarray(True)
        own_maxima = partial.maxima()
        own_sums = partial.sums(own_maxima, first & is_first)
        sums += own_sums
        maxima += own_maxima
        specs.append(
            PartialSpec(
                name,
                type(partial).finish,
                type(partial).shift,
                tuple(number_length(name, number) for number in own_sums),
                tuple(number_length(name, number) for number in own_maxima),
                axes.size(span),
            )
        )
    devices = axes.size(axes.reduced)
    schema = Schema(
        tuple(plain), tuple(specs), step_devices, devices, np.dtype(dtype), sums_steps=step is None
    )
    return schema, _concatenate([*plain.values(), *sums, *limbs, *maxima], dtype)


def check_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars as arrays of one float type, partials as they are; anything else raises."""
    return {
        name: value if isinstance(value, AbstractPartial) else as_scalar(f"metric {name!r}", value)
        for name, value in metrics.items()
    }


def merge(schema: Schema, vector: Float[Array, "*rows n"], axes: Axes) -> Float[Array, "*rows n"]:
    """The parts of all devices, of a row or of several, become one: the same on every device.

    One `lax.pmean` over the devices of all hosts. Means and sums go through it as they are. Maxima,
    and sums that are taken around a point which maxima give, cannot be added up. Where the devices
    are few each has a slot of its own for them, which is zero on all others: then the same mean
    brings every slot to every device. Where they are many the slots would be more than the metrics,
    and a `lax.pmax` precedes the mean.
    """
    if not axes.reduced or not vector.size:
        return vector
    vector = axes.vary(vector)
    plain, sums, limbs, maxima = schema.split(vector)
    devices = axes.size(axes.reduced)
    if not maxima.shape[-1] or devices == 1:
        return axes.pmean(vector)
    slot = len(schema.shifting) + maxima.shape[-1]
    # Divided by a power of two, and multiplied by it, a number stays the same to the last bit.
    if devices & (devices - 1) == 0 and devices * slot <= _MAX_IN_SLOTS:
        return _in_slots(schema, vector, axes, devices)
    merged = _highest(maxima, axes)
    sums = schema.shifted(sums, maxima, merged, jnp)
    means = axes.pmean(jnp.concatenate([plain, sums, limbs], axis=-1))
    return jnp.concatenate([means, merged], axis=-1)


def _highest(maxima: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    """The maxima of all devices, NaN where one device has NaN: some collectives drop it."""
    # As integers of the same order, where NaN comes after infinity. The map is its own inverse.
    integer = jnp.int64 if maxima.dtype.itemsize > 4 else jnp.int32

    def swap(bits: Array) -> Array:
        return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)

    # Canonical NaN: one with the sign bit set would sort below -inf.
    bits = lax.bitcast_convert_type(jnp.where(jnp.isnan(maxima), jnp.nan, maxima), integer)
    merged = axes.pmax(swap(bits))
    return lax.bitcast_convert_type(swap(merged), maxima.dtype)


def _in_slots(
    schema: Schema, vector: Float[Array, "*rows n"], axes: Axes, devices: int
) -> Float[Array, "*rows n"]:
    """One mean for all: each device has a slot, zero on the others, for what cannot be added.

    A slot holds the device's shifting sums and its maxima, `s` numbers. The mean of slot `i` over
    `devices` devices is its content / devices. Shapes: own `(*rows, 1, s)`, slots
    `(*rows, devices, s)`.
    """
    shifting = schema.shifting
    plain, sums, limbs, maxima = schema.split(vector)
    own = jnp.concatenate([sums[..., shifting], maxima], axis=-1)[..., None, :]
    is_mine = jnp.arange(devices)[:, None] == lax.axis_index(axes.reduced)
    slots = jnp.where(is_mine.reshape(*[1] * (own.ndim - 2), devices, 1), own, 0)
    flat = slots.reshape(*own.shape[:-2], -1)
    means = axes.pmean(jnp.concatenate([plain, sums, limbs, flat], axis=-1))
    first = vector.shape[-1] - maxima.shape[-1]
    plain, sums, limbs, _ = schema.split(means)
    slots = means[..., first:].reshape(slots.shape) * devices
    maxima = slots[..., len(shifting) :]
    merged = maxima.max(-2)
    # Every device's sums, `(*rows, devices, sums)`: only the shifting ones differ and count.
    each = jnp.broadcast_to(sums[..., None, :], (*slots.shape[:-1], sums.shape[-1]))
    each = each.at[..., shifting].set(slots[..., : len(shifting)])
    around = jnp.broadcast_to(merged[..., None, :], maxima.shape)
    moved = schema.shifted(each, maxima, around, jnp)[..., shifting]
    sums = sums.at[..., shifting].set(moved.mean(-2))
    return jnp.concatenate([plain, sums, limbs, merged], axis=-1)


def reduce(
    metrics: Mapping[str, Any], axis_name: str | tuple[str, ...] | None = None
) -> Mapping[str, Array]:
    """Reduce the metrics of a step over the devices of all processes, inside compiled code.

    One `lax.pmean` in all, however many metrics there are (and one `lax.pmax` if a `Max` or `Min`
    is among them and the devices are more than a few). Give the result to `Logger.log`.

    Args:
        metrics: nested names to scalars, of which the mean over devices is taken, or to partials
            (`Mean`, `Sum`, `Max`, `Min`, `Last`, or your own subclass of `AbstractPartial`). None
            of them may give a vector: those are logged from `LoggingCallback`.
        axis_name: mesh axes to reduce over; `None` for all manual axes in scope, which are those
            of `shard_map` and `pmap`. Under plain `jit` there are none, and nothing to do: arrays
            are global.

    Returns:
        Flat names (joined with `/`) to scalars, the same on every device. As a pytree the mapping
        is one array, so that neither the step nor `Logger.log` pays for each metric; log it as it
        is, or in another mapping (`{"train": metrics, "epoch": 3}`).

    Raises:
        ValueError: if a value is not a scalar, if a partial gives a vector, or if `axis_name` is
            not in scope.
        TypeError: if a name is not a string, or a value is not a number.

    Example:
        ```python
        def step(params, batch):  # in shard_map
            losses = jax.vmap(loss_fn, (None, 0))(params, batch)
            return reduce({"train": {"loss": Mean.of(losses), "worst": Max(losses.max())}})
        ```
    """
    axes = find_axes(axis_name)
    schema, vector = pack(check_metrics(flatten(metrics)), axes)
    # What is absent is NaN on the way, outside of compiled code, too.
    with jax.debug_nans(False):
        merged = merge(schema, vector, axes)
        plain = [(name, merged[i], None) for i, name in enumerate(schema.plain)]
        return Reduced.of([*plain, *schema.finished(merged, jnp)])


@final
@jax.tree_util.register_pytree_node_class
class Reduced(Mapping[str, Array]):
    """Names to reduced values, held in one vector.

    A step that returns 64 arrays pays for each of them, and so does whatever copies them. As a
    pytree this is one leaf: `Logger.log` takes it as it is. A metric without a value is read as NaN
    here, but is a 0 with a flag in the vector: `jax_debug_nans` must not complain.

    Attributes:
        names: names, in order.
        vector: a value for each name along its last axis; then, for each of `optional`, a number
            above 0 if it has no value.
        optional: positions of the names which may have no value.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        vector: Float[Array, "... n"],
        optional: tuple[int, ...] = (),
    ) -> None:
        self.names = names
        self.vector = vector
        self.optional = optional
        self._values: dict[str, Array] | None = None

    @classmethod
    def of(cls, metrics: Sequence[tuple[str, Array, Array | None]]) -> Self:
        """Names, scalars and whether they are absent (see `Schema.finished`), put into a vector of
        one float type."""
        names: list[str] = []
        values: list[Array] = []
        flags: dict[int, Array] = {}
        for i, (name, value, is_absent) in enumerate(metrics):
            if value.ndim:
                raise ValueError(
                    f"metric {name!r} is a vector of shape {value.shape}; `reduce` returns "
                    "scalars. Log vectors from `LoggingCallback`."
                )
            if is_absent is not None:
                flags[i] = is_absent
                value = jnp.where(is_absent, jnp.zeros_like(value), value)
            names.append(name)
            values.append(value)
        dtype = jnp.zeros((), float).dtype
        return cls(tuple(names), _concatenate([*values, *flags.values()], dtype), tuple(flags))

    def __getitem__(self, name: str) -> Array:
        if self._values is None:
            # Else it would complain of any of them.
            with jax.debug_nans(False):
                values = _unstack(self.vector, len(self.names), self.optional)
            self._values = dict(zip(self.names, values, strict=True))
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)})"

    def tree_flatten(self) -> tuple[tuple[Array], tuple[tuple[str, ...], tuple[int, ...]]]:
        return (self.vector,), (self.names, self.optional)

    @classmethod
    def tree_unflatten(cls, static: tuple[tuple[str, ...], tuple[int, ...]], leaves: Any) -> Self:
        names, optional = static
        (vector,) = leaves
        return cls(names, vector, optional)


@ft.partial(jax.jit, static_argnums=(1, 2))
def _unstack(vector: Array, count: int, optional: tuple[int, ...]) -> list[Array]:
    """All values at once: slices of an array outside of compiled code are a dispatch each."""
    values = [vector[..., i] for i in range(count)]
    for flag, i in enumerate(optional, count):
        values[i] = jnp.where(vector[..., flag] > 0, jnp.full_like(values[i], jnp.nan), values[i])
    return values


def number_length(name: str, number: Array | np.ndarray) -> int | None:
    if number.ndim > 1:
        raise ValueError(
            f"the partial of metric {name!r} gives a number of shape {number.shape}; `sums` and "
            "`maxima` give scalars and vectors. Flatten it."
        )
    return number.shape[0] if number.ndim else None


def _concatenate(parts: Sequence[Array], dtype: Any) -> Float[Array, " n"]:
    """Scalars and vectors, one after the other.

    XLA makes a kernel for each operand of a concatenation. Beside a step of some milliseconds their
    code is not in the processor's caches any more, and 64 of them took 0.3 to 0.5 ms on a CPU. Of
    16 scalars that are selected by their positions it makes one.
    """
    pieces: list[Array] = []
    scalars: list[Array] = []
    for part in parts:
        part = part.astype(dtype)
        if part.ndim or len(scalars) == _SCALARS_A_KERNEL:
            pieces += _stacked(scalars)
            scalars = []
        if part.ndim:
            pieces.append(part)
        else:
            scalars.append(part)
    pieces += _stacked(scalars)
    return jnp.concatenate(pieces) if pieces else jnp.zeros((0,), dtype)


def _stacked(scalars: Sequence[Array]) -> list[Array]:
    if not scalars:
        return []
    positions = np.arange(len(scalars))
    vector = jnp.broadcast_to(scalars[0], positions.shape)
    for i, value in enumerate(scalars[1:], 1):
        vector = jnp.where(positions == i, value, vector)
    return [vector]
