"""All metrics of a step in one vector, its merging over devices, and `reduce`."""

import dataclasses
import functools as ft
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, final

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist._metric_names import flatten
from lerax_dist._schema import PartialSpec, Schema
from lerax_dist.device._axes import GROUPS, Axes, find_axes, group_count, platform_of
from lerax_dist.device._partials import AbstractPartial, as_scalar
from lerax_dist.device._step_state import Episodes, split_steps

# How many numbers of a row the slots of all devices may take: 32 KiB, in a message of 64 KiB.
_MAX_IN_SLOTS = 8192


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
    groups = 1 if step_state is None or axes.manual or axes.reduced else group_count(step_state)
    if groups > 1:
        return _pack_groups(metrics, axes, step_state, is_first, groups)
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
    # In blocks, which `merge` takes apart again: compilers then find each of them at once.
    blocks = [_concatenate(block, dtype) for block in ([*plain.values()], sums, limbs, maxima)]
    return schema, jnp.concatenate(blocks)


def _pack_groups(
    metrics: Mapping[str, Any], axes: Axes, step_state: Any, is_first: bool, groups: int
) -> tuple[Schema, Float[Array, " n"]]:
    """As `pack`, where XLA splits the environments over devices; merged already, in slots."""

    def pack_group(step_state: Any) -> Array:
        nonlocal episodes
        over = axes._replace(reduced=(GROUPS,))
        episodes, vector = merge(*pack({}, over, step_state=step_state), over)
        return vector

    episodes = Schema(())
    split = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), step_state)
    found = jax.vmap(pack_group, axis_name=GROUPS, out_axes=None)(split)
    schema, vector = pack(metrics, axes, is_first=is_first)
    plain, sums, _, maxima = schema.split(vector)
    _, own_sums, limbs, slots = episodes.split(found)

    def everywhere(numbers: Sequence[Array]) -> Array:
        """What is global already, in the slots of all groups: a slot is its content / groups."""
        own = jnp.concatenate([*numbers, sums[:0]])
        own = _in_parts(own, episodes.slot_parts) / groups
        return jnp.broadcast_to(own[:, None], (own.size, groups)).ravel()

    blocks = [plain, sums, own_sums, limbs, maxima, slots]
    if episodes.slots:
        shifting = len(episodes.shifting) * episodes.slot_parts * groups
        blocks[4:] = [everywhere(_picked(sums, schema.shifting)), slots[:shifting]]
        blocks += [everywhere([maxima]), slots[shifting:]]
    schema = dataclasses.replace(
        schema,
        partials=(*schema.partials, *episodes.partials),
        step_devices=groups,
        slots=episodes.slots,
    )
    return schema, jnp.concatenate(blocks)


def check_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars as arrays of one float type, partials as they are; anything else raises."""
    return {
        name: value if isinstance(value, AbstractPartial) else as_scalar(f"metric {name!r}", value)
        for name, value in metrics.items()
    }


def merge(
    schema: Schema, vector: Float[Array, "*rows n"], axes: Axes
) -> tuple[Schema, Float[Array, "*rows m"]]:
    """The parts of all devices, of a row or of several, become one: the same on every device.

    One `lax.pmean` over the devices of all hosts. Means and sums go through it as they are. Maxima,
    and sums that are taken around a point which maxima give, cannot be added up. Each device has a
    slot of its own for them, which is zero on all others: the same mean brings every slot to every
    device. XLA puts a mean into the all-reduce of gradients, but no maximum. Where the slots of
    many devices would not fit into a message, a `lax.pmax` precedes the mean.
    """
    if not axes.reduced or not vector.size:
        return schema, vector
    vector = axes.vary(vector)
    devices = axes.size(axes.reduced)
    if devices == 1 or not schema.slot_size:
        return schema, axes.pmean(vector)
    plain, sums, limbs, maxima = schema.split(vector)
    slotted = dataclasses.replace(schema, slots=devices)
    # A maximum over what `vmap` maps is no collective.
    if axes.crosses_devices and devices * slotted.slot_size <= _MAX_IN_SLOTS:
        own = jnp.concatenate([*_picked(sums, schema.shifting), maxima], axis=-1)
        own = _in_parts(own, slotted.slot_parts)
        is_mine = jnp.arange(devices) == lax.axis_index(axes.reduced)
        is_mine = is_mine.reshape(*[1] * own.ndim, devices)
        slots = jnp.where(is_mine, own[..., None], 0).reshape(*own.shape[:-1], -1)
        vector = jnp.concatenate([plain, sums, limbs, slots], axis=-1)
        return slotted, axes.pmean(vector)
    merged = _highest(maxima, axes)
    sums = schema.shifted(sums, maxima, merged, jnp)
    means = axes.pmean(jnp.concatenate([plain, sums, limbs], axis=-1))
    return schema, jnp.concatenate([means, merged], axis=-1)


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


def _picked(sums: Float[Array, "*rows n"], which: np.ndarray) -> list[Array]:
    """Some of the sums, in slices: they are a few runs, and an index would cost more kernels."""
    runs = np.split(which, np.flatnonzero(np.diff(which) > 1) + 1)
    return [sums[..., run[0] : run[-1] + 1] for run in runs if run.size]


def _in_parts(numbers: Float[Array, "*rows n"], parts: int) -> Float[Array, "*rows m"]:
    """Each number as whole ones of 16 bits, see `Schema.slot_parts`."""
    if parts == 1:
        return numbers
    bits = lax.bitcast_convert_type(numbers, f"uint{8 * numbers.dtype.itemsize}")
    shifts = jnp.arange(parts, dtype=bits.dtype) * 16
    split = bits[..., None] >> shifts.reshape(*[1] * bits.ndim, parts) & 0xFFFF
    return split.astype(numbers.dtype).reshape(*numbers.shape[:-1], -1)


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
        schema, merged = merge(schema, vector, axes)
        plain = merged[: len(schema.plain)]
        return Reduced.of(schema.plain, plain, schema.finished(merged, jnp))


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
    def of(
        cls,
        names: Sequence[str],
        plain: Float[Array, " n"],
        finished: Iterable[tuple[str, Array, Array | None]],
    ) -> Self:
        """Plain scalars, and metrics of partials: name, value, and whether it is absent (see
        `Schema.finished`)."""
        names = [*names]
        parts: list[Array] = [plain]
        flags: dict[int, Array] = {}
        for name, value, is_absent in finished:
            if value.ndim:
                raise ValueError(
                    f"metric {name!r} is a vector of shape {value.shape}; `reduce` returns "
                    "scalars. Log vectors from `LoggingCallback`."
                )
            if is_absent is not None:
                flags[len(names)] = is_absent
                value = jnp.where(is_absent, jnp.zeros_like(value), value)
            names.append(name)
            parts.append(value)
        dtype = jnp.zeros((), float).dtype
        return cls(tuple(names), _concatenate([*parts, *flags.values()], dtype), tuple(flags))

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
    """Scalars and vectors, one after the other."""
    pieces = [part.astype(dtype) for part in parts]
    if platform_of(pieces) == "cpu":
        # The compiler for CPUs makes a kernel of each scalar, which takes it long. Of 16 that are
        # selected by their positions it makes one.
        runs = [[*run] for _, run in itertools.groupby(pieces, lambda piece: piece.ndim)]
        chunks = (run[i : i + 16] for run in runs for i in range(0, len(run), 16))
        pieces = [piece for chunk in chunks for piece in _selected(chunk)]
    return jnp.concatenate([jnp.atleast_1d(piece) for piece in pieces] or [jnp.zeros(0, dtype)])


def _selected(parts: list[Array]) -> list[Array]:
    """Vectors as they are, scalars as one vector."""
    if parts[0].ndim:
        return parts
    positions = np.arange(len(parts))
    vector = jnp.broadcast_to(parts[0], positions.shape)
    for i, value in enumerate(parts[1:], 1):
        vector = jnp.where(positions == i, value, vector)
    return [vector]
