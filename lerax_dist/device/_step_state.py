"""Episode statistics of one environment, advanced once a step. The formulas are lerax's."""

from typing import Self, final

from jax import numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from lerax_dist._protocol import AbstractCallbackStepState


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
