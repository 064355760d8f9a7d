"""Plays the current policy inside the compiled step: lerax environments, gymnax environments. Pure.

Both are reduced to three functions: `start` makes the carry of a `lax.scan`, `step` advances it
and restarts an episode that has ended, `state_of` picks the environment's state to be drawn.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, ArrayLike, Key

# (policy, key) -> states with a leading axis of the number of steps.
Rollout = Callable[[Any, Key[Array, ""]], Any]
# (policy, observation, key) -> action.
Act = Callable[[Any, Any, Key[Array, ""]], Any]
# Marks an array as one that may differ from device to device; see `Axes.vary`.
MarkVarying = Callable[[Array], Array]


@runtime_checkable
class GymnaxEnv(Protocol):
    """What is used of a gymnax environment. Its `step` resets when an episode ends."""

    @property
    def default_params(self) -> Any: ...
    def reset(self, key: Any, params: Any = None) -> Any: ...
    def step(self, key: Any, state: Any, action: Any, params: Any = None) -> Any: ...


@runtime_checkable
class LeraxEnv(Protocol):
    """What is used of a lerax environment, or of a wrapper around one."""

    def initial(self, *, key: Any) -> Any: ...
    def transition(self, state: Any, action: Any, *, key: Any) -> Any: ...
    def observation(self, state: Any, *, key: Any) -> Any: ...
    def terminal(self, state: Any, *, key: Any) -> Any: ...
    def truncate(self, state: Any) -> Any: ...
    def action_mask(self, state: Any, *, key: Any) -> Any: ...


def play_gymnax(
    env: Any,
    policy: Any,
    act: Act | None,
    key: Key[Array, ""],
    num_steps: int,
    mark_varying: MarkVarying,
) -> Any:
    """The states of the innermost gymnax environment under a policy, over `num_steps`.

    The environment has its default parameters. If `act` is `None`, the policy is called as
    `policy(observation, key=key)`.
    """
    if act is None and not callable(policy):
        raise TypeError(
            f"`policy` is a {type(policy).__name__}, which is not callable. Pass "
            "`act=lambda policy, observation, key: ...` to `LoggingCallback`."
        )
    params = env.default_params

    def step(carry: tuple[Any, Any], key: Key[Array, ""]) -> tuple[Any, Any]:
        observation, state = carry
        act_key, step_key = jax.random.split(key)
        if act is None:
            action = policy(observation, key=act_key)
        else:
            action = act(policy, observation, act_key)
        observation, state, *_ = env.step(step_key, state, action, params)
        return observation, state

    def state_of(carry: tuple[Any, Any]) -> Any:
        state = carry[1]
        # gymnax's wrappers keep the state of what they wrap under this name.
        while hasattr(state, "env_state"):
            state = state.env_state
        return state

    return _scan(lambda key: env.reset(key, params), step, state_of, key, num_steps, mark_varying)


def play_lerax(
    env: Any, policy: Any, key: Key[Array, ""], num_steps: int, mark_varying: MarkVarying
) -> Any:
    """The states of a lerax environment under a lerax policy, over `num_steps`.

    The policy gets no key, so it takes its most likely action.
    """

    def start(key: Key[Array, ""]) -> tuple[Any, Any]:
        env_key, policy_key = jax.random.split(key)
        return env.initial(key=env_key), policy.reset(key=policy_key)

    def step(carry: tuple[Any, Any], key: Key[Array, ""]) -> tuple[Any, Any]:
        env_state, policy_state = carry
        observe_key, move_key, end_key, start_key = jax.random.split(key, 4)
        observation = env.observation(env_state, key=observe_key)
        mask = env.action_mask(env_state, key=observe_key)
        policy_state, action = policy(policy_state, observation, action_mask=mask)
        low, high = (getattr(env.action_space, name, None) for name in ("low", "high"))
        if low is not None and high is not None:
            action = jnp.clip(action, low, high)
        after = env.transition(env_state, action, key=move_key)
        done = env.terminal(after, key=end_key) | env.truncate(after)
        return _select(done, start(start_key), (after, policy_state))

    return _scan(start, step, lambda carry: carry[0], key, num_steps, mark_varying)


def _select(done: Array, fresh: Any, after: Any) -> Any:
    fresh, _ = eqx.partition(fresh, eqx.is_array)
    after, static = eqx.partition(after, eqx.is_array)
    chosen = jax.tree.map(lambda a, b: lax.select(done, a.astype(b.dtype), b), fresh, after)
    return eqx.combine(chosen, static)


def _scan(
    start: Callable[[Key[Array, ""]], Any],
    step: Callable[[Any, Key[Array, ""]], Any],
    state_of: Callable[[Any], Any],
    key: Key[Array, ""],
    num_steps: int,
    mark_varying: MarkVarying,
) -> Any:
    """The states before each of `num_steps` steps, stacked along a new leading axis."""
    start_key, key = jax.random.split(key)
    first, static = eqx.partition(start(start_key), eqx.is_array_like)

    def advance(carry: Any, key: Key[Array, ""]) -> Any:
        after, _ = eqx.partition(step(eqx.combine(carry, static), key), eqx.is_array_like)
        return jax.tree.map(lambda leaf: mark_varying(jnp.asarray(leaf)), after)

    # An environment may start with Python numbers, or with a narrower type than `step` returns;
    # a scan needs the same types throughout.
    types = jax.eval_shape(advance, jax.tree.map(jnp.asarray, first), key)
    first = jax.tree.map(lambda leaf, like: mark_varying(_cast(leaf, like.dtype)), first, types)

    def once(carry: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        state = jax.tree.map(jnp.asarray, state_of(eqx.combine(carry, static)))
        return advance(carry, key), eqx.filter(state, eqx.is_array)

    return lax.scan(once, first, jax.random.split(key, num_steps))[1]


def _cast(leaf: ArrayLike, dtype: Any) -> Array:
    array = jnp.asarray(leaf)
    # A random key has no `astype`, and needs none.
    return array if array.dtype == dtype else array.astype(dtype)
