"""From a plain loop to the host: arrays that another thread may read without any device work."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer


def fetch(name: str, value: Any) -> Any:
    """A scalar that a thread may wait for and read; this call waits for nothing.

    Args:
        name: name of the metric, for errors.
        value: Python or NumPy number, or a `jax.Array` scalar that is whole on this process:
            local, or replicated over processes.

    Returns:
        A number, or an array on one device whose copy to the host is under way.

    Raises:
        ValueError: the value is not a scalar, or is sharded over processes.
        TypeError: the value is not a number, or belongs to a trace.
    """
    if isinstance(value, jax.Array):
        return _fetch_array(name, value)
    if isinstance(value, (float, int, np.number, np.bool_)):
        return value
    array = np.asarray(value) if hasattr(value, "__array__") else None
    if array is None or not _is_real(array.dtype):
        raise TypeError(
            f"metric {name!r} is {value!r} of type {type(value).__name__}; metrics are real "
            "numbers. Use float(value), or log it as a hyperparameter."
        )
    _check_shape(name, array.shape)
    return array.copy()


def _fetch_array(name: str, value: jax.Array) -> Any:
    if isinstance(value, Tracer):
        raise TypeError(
            f"metric {name!r} belongs to a trace: `log` was called inside compiled code, where it "
            "would run once, while tracing. Return the value from the step and log it outside, or "
            "use `LoggingCallback` inside."
        )
    if not (value.is_fully_addressable or value.is_fully_replicated):
        raise ValueError(
            f"metric {name!r} is sharded over processes: shape {value.shape}, sharding "
            f"{value.sharding}; this process holds a part only. Reduce it in the compiled step, "
            "with `jnp.mean` on global arrays or with `lerax_dist.reduce` inside `shard_map`."
        )
    _check_shape(name, value.shape)
    if not _is_real(value.dtype):
        raise TypeError(
            f"metric {name!r} has dtype {value.dtype}; metrics are real numbers. "
            "Log e.g. its absolute value."
        )
    # One device's copy: reading it is no collective and starts no work on any device.
    local = value.addressable_data(0)
    local.copy_to_host_async()
    return local


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if shape != ():
        raise ValueError(
            f"metric {name!r} must be a scalar, got shape {shape}. Reduce it first, e.g. with "
            "`.mean()`."
        )


def _is_real(dtype: Any) -> bool:
    # JAX's own answer: NumPy does not take bfloat16 for a number.
    kinds = (np.bool_, np.integer, np.floating)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
