"""A step that keeps its devices busy for a given time, inside the compiled program."""

from collections.abc import Callable

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

SIZE = 96


def busy(x: Float[Array, "... n n"], repeats: Int[Array, ""]) -> Float[Array, "... n n"]:
    """Products of matrices, each of which needs the one before it."""
    weights = jnp.eye(SIZE) * 0.5 + 0.01

    def once(_: int, x: Array) -> Array:
        return jnp.tanh(x @ weights)

    return lax.fori_loop(0, repeats, once, x)


def start(*leading: int) -> Float[Array, "... n n"]:
    """What `busy` begins with."""
    return jax.random.normal(jax.random.key(0), (*leading, SIZE, SIZE))


def calibrate(run: Callable[[int], float], seconds: float) -> int:
    """The number of repeats with which a step takes `seconds`.

    Args:
        run: runs steps of a number of repeats, and returns the seconds that one took.
        seconds: how long one should take.
    """
    repeats = 20
    run(repeats)
    for _ in range(3):
        took = min(run(repeats) for _ in range(3))
        repeats = max(1, round(repeats * min(seconds / took, 50.0)))
    return repeats
