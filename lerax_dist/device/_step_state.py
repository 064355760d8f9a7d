"""The step state of an environment: its counters and episode statistics, and what a row says of
them."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Self, final

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from lerax_dist._protocol import AbstractCallbackStepState
from lerax_dist._schema import LIMB_BITS, LIMBS, Finished
from lerax_dist.device._partials import AbstractPartial, ratio
from lerax_dist.device._spread import spread_maxima, spread_of, spread_shift, spread_terms


@final
class LoggingCallbackStepState(AbstractCallbackStepState):
    """Per-environment step state for `LoggingCallback`.

    The averages are exponential moving averages (EMA) over episodes that start at zero: after
    `n` episodes of return `r` the average is `(1 - (1 - alpha)**n) * r`.

    Attributes:
        step: steps taken.
        episode_return: return of the current episode so far, in units of reward.
        episode_length: steps of the current episode so far.
        episode_done: whether the previous step ended an episode.
        average_return: EMA of the returns of ended episodes.
        average_length: EMA of the lengths of ended episodes; 0 until one has ended.

    Example:
        ```python
        state = LoggingCallbackStepState.initial()
        for reward, done in [(1.0, False), (1.0, True)]:
            state = state.next(jnp.asarray(reward), jnp.asarray(done), alpha=0.9)
        print(state.average_return)  # 1.8: an episode of return 2, weighed by 0.9
        ```
    """

    step: Int[Array, ""]
    episode_return: Float[Array, ""]
    episode_length: Int[Array, ""]
    episode_done: Bool[Array, ""]
    average_return: Float[Array, ""]
    average_length: Float[Array, ""]

    def __init__(
        self,
        step: Int[Array, ""],
        episode_return: Float[ArrayLike, ""],
        episode_length: Int[ArrayLike, ""],
        episode_done: Bool[ArrayLike, ""],
        average_return: Float[ArrayLike, ""],
        average_length: Float[ArrayLike, ""],
    ) -> None:
        self.step = jnp.asarray(step)
        self.episode_return = jnp.asarray(episode_return)
        self.episode_length = jnp.asarray(episode_length)
        self.episode_done = jnp.asarray(episode_done)
        self.average_return = jnp.asarray(average_return)
        self.average_length = jnp.asarray(average_length)

    @classmethod
    def initial(cls) -> Self:
        """The state before the first step: all zero."""
        return cls(
            jnp.zeros((), int),
            jnp.zeros((), float),
            jnp.zeros((), int),
            jnp.zeros((), bool),
            jnp.zeros((), float),
            jnp.zeros((), float),
        )

    def next(
        self, reward: Float[Array, ""], done: Bool[Array, ""], alpha: float | Float[Array, ""]
    ) -> Self:
        """The state after one more environment step.

        The running return and length restart on the step after `done`. An average that is not
        finite restarts at zero when the next episode ends, so that one bad reward does not spoil
        the statistics of a whole run.

        Args:
            reward: reward of the step.
            done: whether the step ended the episode.
            alpha: weight of the ended episode's value in the averages, in (0, 1].

        Returns:
            The new state.
        """
        reward = jnp.asarray(reward, self.episode_return.dtype)
        done = jnp.asarray(done, bool)
        # `where`, not multiplication: `0 * nan` is `nan`.
        episode_return = jnp.where(self.episode_done, 0.0, self.episode_return) + reward
        episode_length = jnp.where(self.episode_done, 0, self.episode_length) + 1

        def average(old: Array, new: Array) -> Array:
            past = jnp.where(jnp.isfinite(old), old, 0.0)
            return jnp.where(done, alpha * new.astype(old.dtype) + (1.0 - alpha) * past, old)

        return type(self)(
            self.step + 1,
            episode_return,
            episode_length,
            done,
            average(self.average_return, episode_return),
            average(self.average_length, episode_length),
        )


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
        return spread_maxima(self.returns, self.ended, tuple(range(self.ended.ndim)))

    def sums(self, maxima: Sequence[Array], first: Bool[Array, ""]) -> tuple[Array, ...]:
        lengths = jnp.where(self.ended, self.lengths, 0.0)
        # Each for itself: the TPU's compiler makes one kernel of all, but four if they are stacked.
        return tuple(map(jnp.sum, (*spread_terms(self.returns, self.ended, maxima), lengths)))

    @staticmethod
    def shift(
        sums: Sequence[Any], maxima: Sequence[Any], merged: Sequence[Any], numpy: ModuleType
    ) -> Sequence[Any]:
        *returns, lengths = sums
        return (*spread_shift(returns, maxima, merged, numpy), lengths)

    @staticmethod
    def finish(sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType) -> Finished:
        *returns, lengths = sums
        spread = spread_of(returns, maxima, numpy)
        values = {
            "return": spread.mean,
            "return_min": spread.lowest,
            "return_max": spread.highest,
            "return_std": spread.deviation,
            "length": ratio(lengths, spread.count, numpy),
            "count": spread.count,
        }
        return Finished(values, spread.count)


def split_steps(step: Int[Array, "..."]) -> Float[Array, " limb"]:
    """The exact sum of step counters, of up to 2**24 environments, as limbs, lowest first.

    float32 counts to 2**24 only, and int32 to 2.1e9. So a counter travels as limbs of 8 bits: each
    device sends values below 256, their sum over up to 2**15 devices is exact in float32, also as
    the mean that `lax.pmean` makes of it, and the host joins them again (`join_limbs`). Together
    they are exact below 2**56.
    """
    mask = (1 << LIMB_BITS) - 1
    wide = step.dtype.itemsize > 4
    counts = step.astype(jnp.uint64 if wide else jnp.uint32)
    digits = LIMBS if wide else 4
    shifts = jnp.arange(digits, dtype=counts.dtype) * LIMB_BITS
    # Shapes of one length, here and elsewhere: users may have JAX refuse rank promotion.
    shifts = shifts.reshape(*[1] * counts.ndim, digits)
    parts = ((counts[..., None] >> shifts) & mask).astype(jnp.uint32)
    # dtype: under x64 a sum of uint32 would be uint64, which needs no limbs but two layouts.
    totals = jnp.sum(parts, axis=tuple(range(counts.ndim)), dtype=jnp.uint32)
    limbs = []
    carry = jnp.zeros((), jnp.uint32)
    for i in range(LIMBS):
        value = carry + (totals[i] if i < digits else jnp.zeros((), jnp.uint32))
        limbs.append(value & jnp.uint32(mask))
        carry = value >> jnp.uint32(LIMB_BITS)
    return jnp.stack(limbs).astype(jnp.float32)


# What `emit` takes as a step: an integer, or a pair `(count, unit)` that stands for their product.
Step = int | np.integer | Int[Array, ""] | tuple[int | np.integer | Int[Array, ""], int]


def split_step(step: Step) -> tuple[Float[Array, " limb"], int]:
    """A step as limbs, and how many steps a count of them stands for.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is not a scalar, or is known and negative or too large.
    """
    count, unit = step if isinstance(step, tuple) and len(step) == 2 else (step, 1)
    whole = isinstance(count, int | np.integer | np.ndarray | Array) and not isinstance(count, bool)
    if not (whole and jnp.issubdtype(jnp.result_type(count), jnp.integer)) or type(unit) is not int:
        raise TypeError(
            f"`step` must be an integer, or a pair of one and a Python integer, got {step!r}. "
            "Count steps in integers."
        )
    if np.shape(count) != ():
        raise ValueError(
            f"`step` must be a scalar, got shape {np.shape(count)}. Give the step of the whole run."
        )
    if unit < 1 or not isinstance(count, Array) and not 0 <= int(count) < 1 << LIMB_BITS * LIMBS:
        raise ValueError(f"`step` must be 0 or more and below 2**56, got {step!r}.")
    if isinstance(count, Array):
        return split_steps(count), unit
    known = [int(count) >> LIMB_BITS * i & (1 << LIMB_BITS) - 1 for i in range(LIMBS)]
    return jnp.asarray(known, jnp.float32), unit


def largest_steps(
    limbs: Float[Array, "members rows limb"], counts: Bool[Array, "members rows"]
) -> Float[Array, "rows limb"]:
    """The largest step over the members that count, of limbs that need not be below 256."""
    mask = jnp.uint32((1 << LIMB_BITS) - 1)
    digits: list[Array] = []
    carry = jnp.zeros(counts.shape, jnp.uint32)
    for i in range(LIMBS):
        value = carry + jnp.round(limbs[..., i]).astype(jnp.uint32)
        digits.append(jnp.where(counts, value & mask, jnp.uint32(0)))
        carry = value >> jnp.uint32(LIMB_BITS)
    # Digit by digit from the highest: only the members that are ahead so far are compared.
    ahead, largest = counts, []
    for digit in reversed(digits):
        top = jnp.max(jnp.where(ahead, digit, jnp.uint32(0)), axis=0)
        ahead &= digit == top[None]
        largest.insert(0, top)
    return jnp.stack(largest, axis=-1).astype(limbs.dtype)
