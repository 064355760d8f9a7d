"""Mean, lowest, highest and deviation of values, as maxima and sums that merge (see
`AbstractPartial`). Shared by the returns of environments and the metrics of members."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from lerax_dist.device._partials import ratio


class Spread(NamedTuple):
    """Of some values; all NaN if there are none."""

    mean: Any
    lowest: Any
    highest: Any
    deviation: Any
    count: Any


def spread_maxima(
    values: Float[Array, "..."], there: Bool[Array, "..."], axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """Highest value, and the negative of the lowest, over `axes`, of those that are `there`."""
    highest = jnp.max(jnp.where(there, values, -jnp.inf), axis=axes)
    return highest, jnp.max(jnp.where(there, -values, -jnp.inf), axis=axes)


def spread_terms(
    values: Float[Array, "..."], there: Bool[Array, "..."], maxima: Sequence[Array]
) -> list[Array]:
    """What is to be summed over the same axes: offsets, their squares, the count.

    Squares are those of offsets from the middle of the range: around 0 the variance of returns like
    500 +- 1 would drown in float32.
    """
    offsets = jnp.where(there, values - _middle(maxima, jnp), 0.0)
    return [offsets, offsets * offsets, there.astype(offsets.dtype)]


def spread_shift(
    sums: Sequence[Any], maxima: Sequence[Any], merged: Sequence[Any], numpy: ModuleType
) -> Sequence[Any]:
    """The sums around another middle, `d` below the old one.

    For `n` offsets `x`: sum of (x + d)   = sum of x + n d, and
                         sum of (x + d)^2 = sum of x^2 + 2 d sum of x + n d^2
                                          = sum of x^2 + d (sum of x + sum of (x + d)).
    """
    offsets, squares, count = sums
    d = _middle(maxima, numpy) - _middle(merged, numpy)
    moved = offsets + count * d
    return (moved, squares + d * (offsets + moved), count)


def spread_of(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Spread:
    """What merged sums and maxima say."""
    offsets, squares, count = sums
    # A mean over devices times their number is off by some 1e-7 if that is no power of 2.
    count = numpy.round(count)
    highest, lowest = maxima
    offset = ratio(offsets, count, numpy)
    variance = ratio(squares, count, numpy) - offset * offset
    return Spread(
        _middle(maxima, numpy) + offset,
        # The negative of 0.0 would be written as -0.0.
        numpy.where(count == 0, numpy.nan, 0.0 - lowest),
        numpy.where(count == 0, numpy.nan, highest),
        numpy.sqrt(numpy.maximum(variance, 0.0)),
        count,
    )


def _middle(maxima: Sequence[Any], numpy: ModuleType) -> Any:
    # Infinite before there is a value. Masked first, or `jax_debug_nans` would complain.
    highest, lowest = (numpy.where(numpy.isfinite(each), each, 0.0) for each in maxima)
    return 0.5 * highest - 0.5 * lowest
