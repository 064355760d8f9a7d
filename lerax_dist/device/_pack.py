"""All metrics of an iteration in one vector. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from lerax_dist._metrics import flatten
from lerax_dist.device import _steps
from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._merge import merge
from lerax_dist.device._partials import AbstractPartial
from lerax_dist.device._reduced import Reduced
from lerax_dist.device._scalar import as_scalar
from lerax_dist.device._schema import Schema, Slot
from lerax_dist.device._stack import stack


def share(
    scalars: Mapping[str, Any],
    axes: Axes,
    *,
    partials: Mapping[str, AbstractPartial] | None = None,
    step_state: Any = None,
    leads: bool = True,
) -> tuple[Schema, Float[Array, " n"]]:
    """This device's share of a row. No collective.

    Args:
        scalars: flat name to scalar or partial.
        axes: axes that it is going to be reduced over.
        partials: further partials that are made of `step_state`.
        step_state: step states whose `step` is summed exactly; `None` for no step.
        leads: whether the first device of this program is the first of the run.

    Returns:
        What the vector means, and the vector.

    Raises:
        ValueError: a value is not a scalar.
        TypeError: a value is not a number.
    """
    dtype = jnp.zeros((), float).dtype
    scalars = check_scalars(scalars)
    plain = {k: v for k, v in scalars.items() if not _is_partial(v)}
    parts = {k: v for k, v in scalars.items() if _is_partial(v)}
    spans = {name: axes.spanned_by(part) for name, part in parts.items()}
    if step_state is not None:
        span = axes.spanned_by(step_state)
        spans |= {name: span for name in partials or {}}
        parts |= partials or {}

    slots = []
    sums: list[Array] = []
    maxima: list[Array] = []
    for name, part in parts.items():
        # Along an axis where the part is the same everywhere each device counts as the first.
        first = lax.axis_index(spans[name]) == 0 if spans[name] else jnp.asarray(True)
        own_maxima = part.maxima()
        own_sums = part.sums(own_maxima, first & leads)
        sums += own_sums
        maxima += own_maxima
        devices = axes.size(spans[name])
        slots.append(
            Slot(name, part.finish(), part.shift(), len(own_sums), len(own_maxima), devices)
        )
    steps = None
    limbs: list[Array] = []
    if step_state is not None:
        limbs = list(_steps.split(step_state.step))
        steps = axes.size(axes.spanned_by(step_state))
    schema = Schema(tuple(plain), tuple(slots), steps, axes.size(axes.reduced))
    return schema, _vector([*plain.values(), *sums, *limbs, *maxima], dtype)


def check_scalars(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars as arrays of one float type, partials as they are.

    Raises:
        ValueError: a value is not a scalar.
        TypeError: a value is not a number.
    """
    return {k: v if _is_partial(v) else as_scalar(f"metric {k!r}", v) for k, v in scalars.items()}


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
        ValueError: a value is not a scalar, or `axis_name` is not in scope.
        TypeError: a name is not a string, or a value is not a number.

    Example:
        ```python
        def step(params, batch):  # in shard_map
            losses = jax.vmap(loss_fn, (None, 0))(params, batch)
            return reduce({"train": {"loss": Mean.of(losses), "worst": Max(losses.max())}})
        ```
    """
    axes = find_axes(axis_name)
    schema, vector = share(flatten(metrics), axes)
    return Reduced.of(schema.metrics(merge(schema, vector, axes)))


def to_bits(vector: Float[Array, " n"]) -> Int[Array, " m"]:
    """The vector as int32, so that no part of a transfer can round an integer that lies beside."""
    return lax.bitcast_convert_type(vector, jnp.int32).ravel()


def from_bits(bits: np.ndarray, dtype: Any) -> np.ndarray:
    """The vector that `to_bits` took apart, on the host."""
    return bits.view(dtype)


def _is_partial(value: Any) -> bool:
    return isinstance(value, AbstractPartial)


def _vector(values: list[Array], dtype: Any) -> Float[Array, " n"]:
    if not values:
        return jnp.zeros((0,), dtype)
    return stack([value.astype(dtype) for value in values])
