"""Partial results that merge: totals and counts cross the devices, division comes last.

A partial gives two kinds of numbers: maxima, merged by maximum, and sums, merged by addition. Each
is a scalar or a vector of fixed length. Sums may be taken around a point that the partial's own
maxima give; `shift` then moves them to the point that the merged maxima give, before they are
added. `finish` makes metrics of the merged numbers, with `jax.numpy` in a step and with NumPy on
the host.
"""

import abc
import functools as ft
import operator
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar, Self, cast, final

import equinox as eqx
import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from lerax_dist._schema import Finished, Shift

_REAL = (jnp.bool_, jnp.integer, jnp.floating)


class AbstractPartial(eqx.Module):
    """A metric of one device that can be merged with those of the others.

    Subclass it for a metric of your own: give `sums` or `maxima`, or both, and `finish`.

    Example:
        ```python
        class GeometricMean(AbstractPartial):
            log_total: jax.Array
            count: jax.Array

            def sums(self, maxima, first):
                return (self.log_total, self.count)

            @staticmethod
            def finish(sums, maxima, numpy):
                log_total, count = sums
                return Finished({"": numpy.exp(log_total / count)}, count)


        ratios = jnp.asarray([1.0, 4.0])
        mean = GeometricMean(jnp.log(ratios).sum(), jnp.asarray(2.0))
        print(reduce({"ratio": mean})["ratio"])  # 2.0
        ```
    """

    shift: ClassVar[Shift | None] = None
    """A static function `(sums, maxima, merged_maxima, numpy)` that gives the sums as taken around
    the point of the merged maxima; `None` if the sums depend on no maxima."""

    def maxima(self) -> tuple[Array, ...]:
        """Numbers to merge by maximum: scalars, or vectors of fixed length."""
        return ()

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        """Numbers to merge by addition: scalars, or vectors of fixed length.

        Args:
            maxima: this partial's own.
            first: whether this is the first device; a Python bool if `Logger.log` calls it.
        """
        return ()

    @staticmethod
    @abc.abstractmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        """The metrics of the merged numbers.

        On the host it is called for many rows at once: each scalar is an array of shape `(rows,)`
        there, each vector one of `(length, rows)`, so formulas written for one row broadcast.

        Args:
            sums: merged sums.
            maxima: merged maxima.
            numpy: NumPy or `jax.numpy`.
        """


def ratio(total: Any, count: Any, numpy: ModuleType) -> Any:
    """`total / count`, NaN (and no warning) where the count is 0."""
    return numpy.where(count == 0, numpy.nan, total / numpy.where(count == 0, 1.0, count))


@final
class Mean(AbstractPartial):
    """Mean over everything on all devices: totals and counts are summed, then divided.

    Unlike a mean of means it weighs every value alike, however many of them a device holds.

    Args:
        total: sum of the values on this device, a scalar.
        count: how many values that were, or the sum of their weights, a scalar.

    Raises:
        ValueError: if one of them is not a scalar.
        TypeError: if one of them is not a real number.

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
        self.total = _number("`total`", total)
        self.count = _number("`count`", count)

    @classmethod
    def of(
        cls, values: ArrayLike | Sequence[Any], where: ArrayLike | Sequence[Any] | None = None
    ) -> Self:
        """Mean of an array.

        Args:
            values: array of any shape, or a list.
            where: mask of the same shape, or weights; `None` weighs all alike.

        Returns:
            The mean of this device's values. With no value at all (also if `where` is 0 or `False`
            everywhere, on all devices) it is NaN, and rows omit it.

        Raises:
            TypeError: if an argument holds complex numbers.
        """
        # What is on the host stays there: `Logger.log` then costs no device any work.
        on_device = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((values, where)))
        numpy: Any = jnp if on_device else np
        for name, given in (("values", values), ("where", where)):
            if numpy.iscomplexobj(given):
                raise TypeError(f"`{name}` holds complex numbers. Give e.g. their absolute values.")
        with np.errstate(all="ignore"):
            values = numpy.asarray(values, float)
            weights = numpy.ones_like(values) if where is None else numpy.asarray(where, float)
            both = numpy.stack([numpy.where(weights == 0, 0, values) * weights, weights])
            total, count = numpy.sum(both, axis=tuple(range(1, both.ndim)))
        return cls(total, count)

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        return (self.total, self.count)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        total, count = sums
        return Finished({"": ratio(total, count, numpy)}, count)


@final
class Sum(AbstractPartial):
    """Sum over the devices.

    Args:
        value: this device's part, a scalar.

    Raises:
        ValueError: if it is not a scalar.
        TypeError: if it is not a real number.

    Example:
        ```python
        tokens = jnp.asarray([[3, 1, 0], [7, 0, 0]])
        metrics = reduce({"tokens": Sum((tokens > 0).sum())})  # of the batches of all devices
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = _number("`value`", value)

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        return (self.value,)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        return Finished({"": sums[0]}, 1)


@final
class Max(AbstractPartial):
    """Maximum over the devices.

    Args:
        value: this device's maximum, a scalar.

    Raises:
        ValueError: if it is not a scalar.
        TypeError: if it is not a real number.

    Example:
        ```python
        losses = jnp.asarray([2.0, 4.0, 9.0])
        metrics = reduce({"worst": Max(losses.max())})
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = _number("`value`", value)

    def maxima(self) -> tuple[Array, ...]:
        return (self.value,)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        return Finished({"": maxima[0]}, 1)


@final
class Min(AbstractPartial):
    """Minimum over the devices.

    Args:
        value: this device's minimum, a scalar.

    Raises:
        ValueError: if it is not a scalar.
        TypeError: if it is not a real number.

    Example:
        ```python
        losses = jnp.asarray([2.0, 4.0, 9.0])
        metrics = reduce({"best": Min(losses.min())})
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = _number("`value`", value)

    def maxima(self) -> tuple[Array, ...]:
        return (-self.value,)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        # Not the negative, which is -0.0 for 0.0.
        return Finished({"": 0.0 - maxima[0]}, 1)


@final
class Last(AbstractPartial):
    """The first device's value as it is, for what is the same everywhere.

    It is not averaged, so no rounding changes it: its bits cross as whole numbers of 16 bits.

    Args:
        value: the value, a scalar.

    Raises:
        ValueError: if it is not a scalar.
        TypeError: if it is not a real number.

    Example:
        ```python
        metrics = reduce({"learning_rate": Last(3e-4), "epoch": Last(7)})
        ```
    """

    value: Float[Array, ""]

    def __init__(self, value: ArrayLike) -> None:
        self.value = _number("`value`", value)

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        # A mean over the devices, times their number, is off by a rounding at most, which is below
        # 1/2 for whole numbers of 16 bits.
        if isinstance(self.value, jax.Array) or isinstance(first, jax.Array):
            value = jnp.where(first, self.value, 0.0)
            whole = jnp.uint32 if value.dtype.itemsize == 4 else jnp.uint64
            bits = lax.bitcast_convert_type(value, whole)
        else:
            value = np.where(first, self.value, 0.0)
            bits: Any = value.view(np.uint64)
        shifts = range(0, 8 * bits.dtype.itemsize, 16)
        return tuple((bits >> shift & 0xFFFF).astype(value.dtype) for shift in shifts)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        # Two parts are a float32, four a float64.
        whole, dtype = (np.uint32, np.float32) if len(sums) == 2 else (np.uint64, np.float64)
        parts = [numpy.round(part).astype(whole) << 16 * i for i, part in enumerate(sums)]
        return Finished({"": ft.reduce(operator.or_, parts).view(dtype)}, 1)


def _number(what: str, value: Any) -> Float[Array, ""]:
    """As `as_scalar`; what is on the host stays there, as a float64 of NumPy."""
    if isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray)):
        array = np.asarray(value)
        if array.ndim == 0 and array.dtype.kind in "biuf":
            return cast(Array, array.astype(np.float64))
    return as_scalar(what, value)


def as_scalar(what: str, value: Any) -> Float[Array, ""]:
    """A real number as a float scalar; `what` is what it is, for the error."""
    if not (eqx.is_array_like(value) or isinstance(value, np.generic)):
        raise TypeError(
            f"{what} is {value!r} of type {type(value).__name__}; metrics are numbers. Leave it "
            "out, or log it as a hyperparameter."
        )
    if isinstance(value, np.ndarray):
        is_host_integer = value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
    else:
        is_host_integer = isinstance(value, (int, np.integer))
    # JAX would make an int32 of it, for which it may be too large.
    array = jnp.asarray(float(value) if is_host_integer else value)
    if array.ndim != 0:
        raise ValueError(
            f"{what} must be a scalar, got shape {array.shape}. Reduce it in the step, e.g. with "
            "`.mean()`, or give a partial such as `Mean.of(values)`."
        )
    if not any(jnp.issubdtype(array.dtype, kind) for kind in _REAL):
        raise TypeError(
            f"{what} has dtype {array.dtype}; metrics are real numbers. Log e.g. its absolute "
            "value."
        )
    # At once: `-value` of an unsigned integer would wrap around.
    return array.astype(float)
