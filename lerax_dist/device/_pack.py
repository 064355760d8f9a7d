"""All metrics of an iteration in one vector, reduced by one `lax.pmean`. Pure.

Layout of the vector: plain scalars | sums of partials | limbs of the step | maxima of partials.
All but the maxima ride in the mean; a sum is its mean times the number of devices, which the trace
knows. The maxima need a `lax.pmax` of their own, which is there only if a metric asks for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import equinox as eqx
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from lerax_dist._metrics import flatten
from lerax_dist.device import _steps
from lerax_dist.device._axes import Axes, find_axes
from lerax_dist.device._partials import AbstractPartial, Finish

_REAL = (jnp.bool_, jnp.integer, jnp.floating)


class Slot(NamedTuple):
    """Where one partial lies in the vector, and how it becomes a metric."""

    name: str
    finish: Finish
    sums: int
    maxima: int
    devices: int


@final
@dataclass(frozen=True, eq=False)
class Schema:
    """What the numbers of a merged vector mean. Static; it outlives the trace.

    Attributes:
        plain: names of the plain scalars.
        slots: the partials.
        steps: over how many devices the step was summed; `None` if there is no step.
    """

    plain: tuple[str, ...]
    slots: tuple[Slot, ...]
    steps: int | None

    def unpack(self, vector: np.ndarray) -> tuple[int | None, dict[str, Any]]:
        """The exact step (`None` if there is none) and the metrics of a merged vector.

        Args:
            vector: merged vector on the host, of any float type.

        Returns:
            Step, and name to float64 value; what has no value yet is left out.
        """
        vector = vector.astype(np.float64)
        metrics: dict[str, Any] = dict(zip(self.plain, vector, strict=False))
        slots, limbs = self._split(vector)
        # What has no value yet is infinite or NaN on the way, on purpose.
        with np.errstate(invalid="ignore"):
            for slot, sums, maxima in slots:
                values, weight = slot.finish(sums, maxima, np)
                for suffix, value in values.items():
                    if weight != 0 or not np.isnan(value):
                        metrics[slot.name + suffix] = np.float64(value)
        step = None if self.steps is None else _steps.join(limbs * self.steps)
        return step, metrics

    def metrics(self, vector: Float[Array, " n"]) -> dict[str, Array]:
        """The metrics of a merged vector inside compiled code; what has no value is NaN."""
        metrics = {name: vector[place] for place, name in enumerate(self.plain)}
        for slot, sums, maxima in self._split(vector)[0]:
            for suffix, value in slot.finish(sums, maxima, jnp).values.items():
                metrics[slot.name + suffix] = value
        return metrics

    def _split(self, vector: Any) -> tuple[list[tuple[Slot, Any, Any]], Any]:
        n_limbs = 0 if self.steps is None else _steps.LIMBS
        at_sum = len(self.plain)
        at_limb = at_sum + sum(slot.sums for slot in self.slots)
        at_maximum = at_limb + n_limbs
        limbs = vector[at_limb:at_maximum]
        parts = []
        for slot in self.slots:
            sums = vector[at_sum : at_sum + slot.sums] * slot.devices
            maxima = vector[at_maximum : at_maximum + slot.maxima]
            parts.append((slot, sums, maxima))
            at_sum += slot.sums
            at_maximum += slot.maxima
        return parts, limbs


def merge(
    scalars: Mapping[str, Any],
    axes: Axes,
    *,
    partials: Mapping[str, AbstractPartial] | None = None,
    step_state: Any = None,
) -> tuple[Schema, Float[Array, " n"]]:
    """Merge metrics over the devices: one `lax.pmean`, and one `lax.pmax` if maxima are asked for.

    Args:
        scalars: flat name to scalar or partial, this device's share.
        axes: axes to merge over.
        partials: further partials that are made of `step_state`.
        step_state: step states whose `step` is summed exactly; `None` for no step.

    Returns:
        What the vector means, and the vector, the same on every device.

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

    local_maxima = {name: part.maxima() for name, part in parts.items()}
    maxima = _vector([v for values in local_maxima.values() for v in values], dtype)
    if maxima.size and axes.reduced:
        maxima = lax.pmax(axes.vary(maxima), axes.reduced)

    slots = []
    sums: list[Array] = []
    seen = 0
    for name, part in parts.items():
        own = maxima[seen : seen + len(local_maxima[name])]
        seen += len(own)
        # Along an axis where the part is the same everywhere each device counts as the first.
        first = lax.axis_index(spans[name]) == 0 if spans[name] else jnp.asarray(True)
        totals = part.sums(tuple(own), first)
        sums += totals
        slots.append(Slot(name, part.finish(), len(totals), len(own), axes.size(spans[name])))
    steps = None
    limbs: list[Array] = []
    if step_state is not None:
        limbs = list(_steps.split(step_state.step))
        steps = axes.size(axes.spanned_by(step_state))
    merged = _vector([*plain.values(), *sums, *limbs], dtype)
    if merged.size and axes.reduced:
        merged = lax.pmean(axes.vary(merged), axes.reduced)
    return Schema(tuple(plain), tuple(slots), steps), jnp.concatenate([merged, maxima])


def check_scalars(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars as arrays of one float type, partials as they are.

    Raises:
        ValueError: a value is not a scalar.
        TypeError: a value is not a number.
    """
    dtype = jnp.zeros((), float).dtype
    return {k: v if _is_partial(v) else _number(k, v, dtype) for k, v in scalars.items()}


def reduce(
    metrics: Mapping[str, Any], axis_name: str | tuple[str, ...] | None = None
) -> dict[str, Array]:
    """Reduce the metrics of a step over the devices of all processes, inside compiled code.

    One `lax.pmean` in all, however many metrics there are (and one `lax.pmax` if a `Max` or `Min`
    is among them). Give the result to `Logger.log`.

    Args:
        metrics: nested names to scalars, of which the mean over devices is taken, or to partials
            (`Mean`, `Sum`, `Max`, `Min`, `Last`).
        axis_name: mesh axes to reduce over; `None` for all manual axes in scope, which are those
            of `shard_map` and `pmap`. Under plain `jit` there are none, and nothing to do: arrays
            are global.

    Returns:
        Flat names (joined with `/`) to scalars, the same on every device.

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
    schema, vector = merge(flatten(metrics), find_axes(axis_name))
    return schema.metrics(vector)


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
    return jnp.stack([value.astype(dtype) for value in values])


def _number(name: str, value: Any, dtype: Any) -> Float[Array, ""]:
    if not (eqx.is_array_like(value) or isinstance(value, np.generic)):
        raise TypeError(
            f"metric {name!r} is {value!r} of type {type(value).__name__}; metrics are numbers. "
            "Leave it out, or log it as a hyperparameter."
        )
    # A Python integer may be too large for int32.
    array = jnp.asarray(float(value) if isinstance(value, int) else value)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in _REAL):
        raise TypeError(
            f"metric {name!r} has dtype {array.dtype}; metrics are real numbers. "
            "Log e.g. its absolute value."
        )
    if array.ndim != 0:
        raise ValueError(
            f"metric {name!r} must be a scalar, got shape {array.shape}. Reduce it in the step, "
            "e.g. with `.mean()`, or give a partial such as `Mean.of(values)`."
        )
    return array.astype(dtype)
