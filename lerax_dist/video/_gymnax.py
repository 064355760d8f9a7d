"""gymnax environments and their like: how they are stepped."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Key

from lerax_dist.video._play import Vary, play

Act = Callable[[Any, Any, Key[Array, ""]], Any]


@runtime_checkable
class GymnaxEnv(Protocol):
    """What of a gymnax environment is needed to play it. `step` resets when an episode ends."""

    @property
    def default_params(self) -> Any: ...
    def reset(self, key: Any, params: Any = None) -> Any: ...
    def step(self, key: Any, state: Any, action: Any, params: Any = None) -> Any: ...


def play_gymnax(
    env: Any, policy: Any, act: Act | None, key: Key[Array, ""], num_steps: int, vary: Vary
) -> Any:
    """The environment's states under a policy, with the environment's default parameters.

    Args:
        env: environment, or a wrapper around one.
        policy: the policy.
        act: `(policy, observation, key) -> action`; `None` to call `policy(observation, key=key)`.
        key: key of all randomness.
        num_steps: how many steps.
        vary: marks an array as one that may differ from device to device.

    Returns:
        States with a leading axis of `num_steps`.

    Raises:
        TypeError: there is no `act`, and the policy cannot be called.
    """
    if act is None and not callable(policy):
        raise TypeError(
            f"`policy` is a {type(policy).__name__}, which cannot be called. Give "
            "`act=lambda policy, observation, key: ...` to `LoggingCallback`."
        )
    params = env.default_params

    def step(now: tuple[Any, Any], key: Key[Array, ""]) -> tuple[Any, Any]:
        observation, state = now
        act_key, step_key = jax.random.split(key)
        if act is None:
            action = policy(observation, key=act_key)
        else:
            action = act(policy, observation, act_key)
        observation, state, *_ = env.step(step_key, state, action, params)
        return observation, state

    return play(
        lambda key: env.reset(key, params), step, lambda now: _inmost(now[1]), key, num_steps, vary
    )


def _inmost(state: Any) -> Any:
    """The state of the environment inside its wrappers."""
    while hasattr(state, "env_state"):
        state = state.env_state
    return state
