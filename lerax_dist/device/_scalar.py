"""Whatever is a real number becomes a float scalar. Pure."""

from typing import Any

import equinox as eqx
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

_REAL = (jnp.bool_, jnp.integer, jnp.floating)


def as_scalar(what: str, value: Any) -> Float[Array, ""]:
    """A real number as a float scalar.

    Args:
        what: what it is, for the error.
        value: the number.

    Raises:
        ValueError: it is not a scalar.
        TypeError: it is not a number, or not a real one.
    """
    if not (eqx.is_array_like(value) or isinstance(value, np.generic)):
        raise TypeError(
            f"{what} is {value!r} of type {type(value).__name__}; metrics are numbers. Leave it "
            "out, or log it as a hyperparameter."
        )
    array = jnp.asarray(float(value) if _is_host_integer(value) else value)
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
    # At once: the negative of an unsigned integer is no negative.
    return array.astype(float)


def _is_host_integer(value: Any) -> bool:
    """Whether JAX would make an int32 of it, for which it may be too large."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
    return isinstance(value, (int, np.integer))
