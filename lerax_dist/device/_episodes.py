"""The step states of all environments as one partial."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, final

from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from lerax_dist._schema import Finished
from lerax_dist.device._partials import AbstractPartial, ratio


@final
class Episodes(AbstractPartial):
    """Statistics of ended episodes over the environments of the whole run.

    An environment that has not ended an episode yet does not count, neither as 0 nor otherwise.

    Attributes:
        returns: average return of each environment, in units of reward.
        lengths: average episode length of each environment, in steps.
        ended: whether it has ended an episode.
    """

    returns: Float[Array, "..."]
    lengths: Float[Array, "..."]
    ended: Bool[Array, "..."]

    def __init__(self, step_state: Any) -> None:
        """
        Args:
            step_state: step states with any number of leading axes (see
                `LoggingCallbackStepState`).
        """
        self.returns = jnp.asarray(step_state.average_return)
        self.lengths = jnp.asarray(step_state.average_length)
        # An ended episode has a length of 1 or more and a weight above 0 in the average.
        self.ended = self.lengths > 0

    def maxima(self) -> tuple[Array, ...]:
        both = jnp.stack([self.returns, -self.returns])
        hidden = jnp.where(self.ended[None], both, -jnp.inf)
        highest, lowest = jnp.max(hidden, axis=tuple(range(1, hidden.ndim)))
        return (highest, lowest)

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        # Squares are summed around the middle of the range: around 0 the variance of returns like
        # 500 +- 1 would drown in float32.
        middle = _middle(maxima, jnp)
        offsets = jnp.where(self.ended, self.returns - middle, 0.0)
        lengths = jnp.where(self.ended, self.lengths, 0.0)
        ended = self.ended.astype(offsets.dtype)
        terms = jnp.stack([offsets, offsets * offsets, lengths, ended])
        return tuple(jnp.sum(terms, axis=tuple(range(1, terms.ndim))))

    @staticmethod
    def shift(
        sums: Sequence[Any], maxima: Sequence[Any], merged: Sequence[Any], numpy: ModuleType
    ) -> Sequence[Any]:
        """The sums around another middle, `d` below the old one.

        For `n` offsets `x`: sum of (x + d)   = sum of x + n d, and
                             sum of (x + d)^2 = sum of x^2 + 2 d sum of x + n d^2
                                              = sum of x^2 + d (sum of x + sum of (x + d)).
        """
        offsets, squares, lengths, count = sums
        d = _middle(maxima, numpy) - _middle(merged, numpy)
        moved = offsets + count * d
        return (moved, squares + d * (offsets + moved), lengths, count)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        offsets, squares, lengths, count = sums
        # A mean over devices times their number is off by some 1e-7 if that is no power of 2.
        count = numpy.round(count)
        highest, lowest = maxima
        offset = ratio(offsets, count, numpy)
        variance = ratio(squares, count, numpy) - offset * offset
        values = {
            "return": _middle(maxima, numpy) + offset,
            # The negative of 0.0 would be written as -0.0.
            "return_min": numpy.where(count == 0, numpy.nan, 0.0 - lowest),
            "return_max": numpy.where(count == 0, numpy.nan, highest),
            "return_std": numpy.sqrt(numpy.maximum(variance, 0.0)),
            "length": ratio(lengths, count, numpy),
            "count": count,
        }
        return Finished(values, count)


def _middle(maxima: Sequence[Any], numpy: ModuleType) -> Any:
    # Infinite before the first episode ends. Masked first, or `jax_debug_nans` would complain.
    highest, lowest = (numpy.where(numpy.isfinite(each), each, 0.0) for each in maxima)
    return 0.5 * highest - 0.5 * lowest
