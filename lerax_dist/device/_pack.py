"""All metrics of a step in one vector, and `reduce`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, final

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from lerax_dist._metric_names import flatten
from lerax_dist._schema import PartialSpec, Schema
from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._episodes import Episodes
from lerax_dist.device._merge import merge
from lerax_dist.device._partials import AbstractPartial, as_scalar
from lerax_dist.device._steps import split_steps

# Scalars that one kernel stacks; more make it longer, fewer make more of them.
_SCALARS_A_KERNEL = 16


def pack(
    metrics: Mapping[str, Any], axes: Axes, *, step_state: Any = None, is_first: bool = True
) -> tuple[Schema, Float[Array, " n"]]:
    """This device's part of a row. No collective.

    Args:
        metrics: flat name to scalar or partial, see `check_metrics`.
        axes: axes that it is going to be reduced over.
        step_state: step states, whose `step` is summed exactly and whose episode statistics are
            added; `None` for a row without a step.
        is_first: whether the first device of this program is the first of the run.

    Returns:
        What the vector means, and the vector.
    """
    dtype = jnp.zeros((), float).dtype
    plain = {name: value for name, value in metrics.items() if not _is_partial(value)}
    partials = {name: value for name, value in metrics.items() if _is_partial(value)}
    spans = {name: axes.spanned_by(partial) for name, partial in partials.items()}
    limbs: list[Array] = []
    step_devices = None
    if step_state is not None:
        partials["episode/"] = Episodes(step_state)
        spans["episode/"] = axes.spanned_by(step_state)
        limbs = [split_steps(step_state.step)]
        step_devices = axes.size(spans["episode/"])

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
                tuple(_length(name, number) for number in own_sums),
                tuple(_length(name, number) for number in own_maxima),
                axes.size(span),
            )
        )
    schema = Schema(
        tuple(plain),
        tuple(specs),
        step_devices,
        axes.size(axes.reduced),
        np.dtype(dtype),
    )
    return schema, _concatenate([*plain.values(), *sums, *limbs, *maxima], dtype)


def check_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars as arrays of one float type, partials as they are.

    Raises:
        ValueError: if a value is not a scalar.
        TypeError: if a value is not a number.
    """
    return {
        name: value if _is_partial(value) else as_scalar(f"metric {name!r}", value)
        for name, value in metrics.items()
    }


def reduce(
    metrics: Mapping[str, Any], axis_name: str | tuple[str, ...] | None = None
) -> Mapping[str, Array]:
    """Reduce the metrics of a step over the devices of all processes, inside compiled code.

    One `lax.pmean` in all, however many metrics there are (and one `lax.pmax` if a `Max` or `Min`
    is among them and the devices are more than a few). Give the result to `Logger.log`.

    Args:
        metrics: nested names to scalars, of which the mean over devices is taken, or to partials
            (`Mean`, `Sum`, `Max`, `Min`, `Last`).
        axis_name: mesh axes to reduce over; `None` for all manual axes in scope, which are those
            of `shard_map` and `pmap`. Under plain `jit` there are none, and nothing to do: arrays
            are global.

    Returns:
        Flat names (joined with `/`) to scalars, the same on every device. As a pytree the mapping
        is one array, so that neither the step nor `Logger.log` pays for each metric; log it as it
        is, or in another mapping (`{"train": metrics, "epoch": 3}`).

    Raises:
        ValueError: if a value is not a scalar, or `axis_name` is not in scope.
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
    return Reduced.of(schema.metrics(merge(schema, vector, axes), jnp))


@final
@jax.tree_util.register_pytree_node_class
class Reduced(Mapping[str, Array]):
    """Names to reduced values, held in one vector.

    A step that returns 64 arrays pays for each of them, and so does whatever copies them. As a
    pytree this is one leaf, of shape `(n,)`: `Logger.log` takes it as it is.

    Attributes:
        names: names, in order.
        vector: a value for each name along its last axis.
    """

    def __init__(self, names: tuple[str, ...], vector: Float[Array, "... n"]) -> None:
        self.names = names
        self.vector = vector
        self._values: dict[str, Array] | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, Array]) -> Self:
        """Scalars of one float type, put into a vector."""
        for name, value in metrics.items():
            if value.ndim:
                raise ValueError(
                    f"metric {name!r} is a vector of shape {value.shape}; `reduce` returns "
                    "scalars. Log vectors from `LoggingCallback`."
                )
        return cls(tuple(metrics), _concatenate([*metrics.values()], jnp.zeros((), float).dtype))

    def __getitem__(self, name: str) -> Array:
        if self._values is None:
            self._values = dict(zip(self.names, _unstack(self.vector), strict=True))
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)})"

    def tree_flatten(self) -> tuple[tuple[Array], tuple[str, ...]]:
        return (self.vector,), self.names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: Any) -> Self:
        return cls(names, *leaves)


@jax.jit
def _unstack(vector: Array) -> list[Array]:
    """All values at once: slices of an array outside of compiled code are a dispatch each."""
    return [vector[..., i] for i in range(vector.shape[-1])]


def to_bits(vector: Float[Array, "..."]) -> Int[Array, " m"]:
    """The vector as int32, so that no part of a transfer can round an integer beside it."""
    return lax.bitcast_convert_type(vector, jnp.int32).ravel()


def _is_partial(value: Any) -> bool:
    return isinstance(value, AbstractPartial)


def _length(name: str, number: Array) -> int | None:
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
