"""Partial results that merge: totals and counts cross the devices, division comes last. Pure.

A partial gives two kinds of scalars: maxima, which are merged by maximum, and sums, which are
merged by addition. Its sums may be taken around a point that its own maxima give; then `shift`
moves them to the point that the merged maxima give, before they are added. What `finish` returns
makes the metric of both, with `jax.numpy` in a step and with NumPy on the host.
"""

import abc
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Self, final

import equinox as eqx
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from lerax_dist.device._scalar import as_scalar


class Finished(NamedTuple):
    """The metrics of one merged partial.

    Attributes:
        values: suffix of the metric's name (`""` for the metric itself) to value.
        weight: how much went into it. With weight 0 a NaN among the values says that there is no
            value yet; rows leave it out.
    """

    values: dict[str, Any]
    weight: Any


Finish = Callable[[Sequence[Any], Sequence[Any], ModuleType], Finished]
Shift = Callable[[Sequence[Any], Sequence[Any], Sequence[Any], ModuleType], Sequence[Any]]


class AbstractPartial(eqx.Module):
    """A metric of one device that can be merged with those of the others."""

    @abc.abstractmethod
    def maxima(self) -> tuple[Array, ...]:
        """Scalars to merge by maximum."""

    @abc.abstractmethod
    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        """Scalars to merge by addition.

        Args:
            maxima: this partial's own.
            first: whether this is the first device.
        """

    @abc.abstractmethod
    def shift(self) -> Shift | None:
        """A function `(sums, maxima, merged_maxima, numpy)`: the sums, taken around those.

        It holds no array. `None` if the sums depend on no maxima.
        """

    @abc.abstractmethod
    def finish(self) -> Finish:
        """A function `(sums, maxima, numpy)` of the merged scalars.

        It holds no array, so that the host can call it when the trace is long gone.
        """


def ratio(total: Any, count: Any, numpy: ModuleType) -> Any:
    """`total / count`, NaN (and no warning) where the count is 0."""
    return numpy.where(count == 0, numpy.nan, total / numpy.where(count == 0, 1.0, count))


@final
class Mean(AbstractPartial):
    """Mean over everything on all devices: totals and counts are summed, then divided.

    Unlike a mean of means it weighs every value alike, however many of them a device holds.

    Attributes:
        total: sum of the values on this device.
        count: how many values that were, or the sum of their weights.

    Args:
        total: sum of the values on this device, a scalar.
        count: how many values that were, or the sum of their weights, a scalar.

    Raises:
        ValueError: one of them is no scalar.
        TypeError: one of them is no real number.

    Example:
        ```python
        losses, is_token = jnp.asarray([2.0, 4.0, 9.0]), jnp.asarray([True, True, False])
        mean = Mean.of(losses, where=is_token)  # or Mean(total=6.0, count=2)
        print(reduce({"loss": mean}))  # 3.0: of one device here, as no mesh axis is in scope
        ```
    """

    total: Float[Array, ""]
    count: Float[Array, ""]

    def __init__(self, total: ArrayLike, count: ArrayLike) -> None:
        self.total = as_scalar("`total`", total)
        self.count = as_scalar("`count`", count)

    @classmethod
    def of(cls, values: ArrayLike, where: ArrayLike | None = None) -> Self:
        """Mean of an array.

        Args:
            values: array of any shape.
            where: mask of the same shape, or weights; `None` for all alike.

        Returns:
            The mean of this device's values. With no value at all (also if `where` is 0 or `False`
            everywhere, on all devices) it is NaN, and left out of a row.

        Raises:
            TypeError: they are complex numbers.
        """
        for name, given in (("values", values), ("where", where)):
            if jnp.iscomplexobj(given):
                raise TypeError(f"`{name}` holds complex numbers. Give e.g. their absolute values.")
        values = jnp.asarray(values, float)
        weights = jnp.ones_like(values) if where is None else jnp.asarray(where, float)
        both = jnp.stack([jnp.where(weights == 0, 0, values) * weights, weights])
        total, count = jnp.sum(both, axis=tuple(range(1, both.ndim)))
        return cls(total, count)

    def maxima(self) -> tuple[Array, ...]:
        return ()

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        return (self.total, self.count)

    def shift(self) -> None:
        return None

    def finish(self) -> Finish:
        return _finish_mean


def _finish_mean(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
    total, count = sums
    return Finished({"": ratio(total, count, numpy)}, count)


@final
class Sum(AbstractPartial):
    """Sum over the devices.

    Attributes:
        value: this device's share.

    Args:
        value: this device's share, a scalar.

    Raises:
        ValueError: it is no scalar.
        TypeError: it is no real number.

    Example:
        ```python
        tokens = jnp.asarray([[3, 1, 0], [7, 0, 0]])
        metrics = reduce({"tokens": Sum((tokens > 0).sum())})  # of the batches of all devices
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = as_scalar("`value`", value)

    def maxima(self) -> tuple[Array, ...]:
        return ()

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        return (self.value,)

    def shift(self) -> None:
        return None

    def finish(self) -> Finish:
        return _finish_sum


def _finish_sum(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
    return Finished({"": sums[0]}, 1)


@final
class Last(AbstractPartial):
    """The first device's value as it is, for what is the same everywhere.

    It is not averaged, so that no rounding changes it: its bits cross as two whole numbers.

    Attributes:
        value: the value.

    Args:
        value: the value, a scalar.

    Raises:
        ValueError: it is no scalar.
        TypeError: it is no real number.

    Example:
        ```python
        metrics = reduce({"learning_rate": Last(3e-4), "epoch": Last(7)})
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = as_scalar("`value`", value)

    def maxima(self) -> tuple[Array, ...]:
        return ()

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        # A mean over the devices, times their number, is off by a rounding at most, which is below
        # 1/2 for whole numbers of half as many bits.
        whole, half = _WHOLE[self.value.dtype.itemsize]
        bits = lax.bitcast_convert_type(jnp.where(first, self.value, 0.0), whole)
        halves = (bits >> half, bits & (1 << half) - 1)
        return tuple(each.astype(self.value.dtype) for each in halves)

    def shift(self) -> None:
        return None

    def finish(self) -> Finish:
        return _finish_last if self.value.dtype.itemsize == 4 else _finish_last_of_64_bits


# Size of a float in bytes: an integer of that size, and half of its bits.
_WHOLE = {4: (np.uint32, 16), 8: (np.uint64, 32)}


def _finish_last(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
    return Finished({"": _joined(sums, numpy, np.float32)}, 1)


def _finish_last_of_64_bits(
    sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType
) -> Finished:
    return Finished({"": _joined(sums, numpy, np.float64)}, 1)


def _joined(sums: Sequence[Any], numpy: ModuleType, dtype: Any) -> Any:
    whole, half = _WHOLE[np.dtype(dtype).itemsize]
    high, low = (numpy.round(each).astype(whole) for each in sums)
    return (high << half | low).view(dtype)
