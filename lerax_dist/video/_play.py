"""Plays the current policy inside the compiled step. Pure."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Key

Vary = Callable[[Array], Array]


def play(
    start: Callable[[Key[Array, ""]], Any],
    step: Callable[[Any, Key[Array, ""]], Any],
    show: Callable[[Any], Any],
    key: Key[Array, ""],
    num_steps: int,
    vary: Vary,
) -> Any:
    """What is to be seen at each of `num_steps` steps, the start being the first.

    Args:
        start: makes everything that a step needs; any pytree.
        step: makes the next of it, and starts again when an episode has ended.
        show: the part that is to be drawn.
        key: key of all randomness.
        num_steps: how many steps.
        vary: marks an array as one that may differ from device to device.

    Returns:
        The parts to be drawn, stacked along a new leading axis.
    """
    start_key, key = jax.random.split(key)
    first, still = eqx.partition(start(start_key), eqx.is_array_like)

    def advance(moving: Any, key: Key[Array, ""]) -> Any:
        after, _ = eqx.partition(step(eqx.combine(moving, still), key), eqx.is_array_like)
        return jax.tree.map(lambda leaf: vary(jnp.asarray(leaf)), after)

    # An environment may start from Python's numbers, or from a narrower type than it goes on with.
    types = jax.eval_shape(advance, jax.tree.map(jnp.asarray, first), key)
    first = jax.tree.map(lambda leaf, like: vary(_as(leaf, like.dtype)), first, types)

    def once(moving: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        seen = jax.tree.map(jnp.asarray, show(eqx.combine(moving, still)))
        return advance(moving, key), eqx.filter(seen, eqx.is_array)

    return lax.scan(once, first, jax.random.split(key, num_steps))[1]


def _as(leaf: Any, dtype: Any) -> Array:
    array = jnp.asarray(leaf)
    return array if array.dtype == dtype else array.astype(dtype)
