"""Checks of a plain loop's metrics: real numbers, whole on the process that writes them."""

import functools
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer


def check_metrics(metrics: Mapping[str, Any], writes: bool) -> None:
    """Check the metrics of a row; waits for nothing.

    Args:
        metrics: names to values.
        writes: whether this process writes its values; else process 0 writes its own.

    Raises:
        ValueError: if a value is not a scalar, is sharded over processes, is held only by processes
            that do not write it, was donated, or is larger than any float.
        TypeError: if a value is not a number, or belongs to a trace.
    """
    for name, value in metrics.items():
        if isinstance(value, jax.Array):
            _check_array(name, value, value.shape, writes)
        elif isinstance(value, int):
            if abs(value) > sys.float_info.max:
                # Not the value itself: Python refuses to print more than 4300 digits.
                raise ValueError(
                    f"metric {name!r} is an integer of {value.bit_length()} bits, more than a "
                    "float holds. Log its logarithm."
                )
        elif not isinstance(value, (float, np.integer, np.floating, np.bool_)):
            array = np.asarray(value) if hasattr(value, "__array__") else None
            if array is None or not _is_real(array.dtype):
                raise TypeError(
                    f"metric {name!r} is {value!r} of type {type(value).__name__}; metrics are "
                    "real numbers. Use float(value), or log it as a hyperparameter."
                )
            _check_shape(name, array.shape)


def check_vector(names: tuple[str, ...], vector: jax.Array, writes: bool) -> None:
    """`check_metrics` of scalars that are held in one vector."""
    if names:
        _check_array(names[0], vector, vector.shape[:-1], writes)


def _check_array(name: str, value: jax.Array, shape: tuple[int, ...], writes: bool) -> None:
    if isinstance(value, Tracer):
        raise TypeError(
            f"metric {name!r} belongs to a trace: `log` was called inside compiled code, where it "
            "would run once, while tracing. Return the value from the step and log it outside, or "
            "use `LoggingCallback` inside."
        )
    if value.is_deleted():
        raise ValueError(
            f"metric {name!r} was deleted: it has been donated to a step. Log it before that."
        )
    if not (value.is_fully_addressable or value.is_fully_replicated):
        raise ValueError(
            f"metric {name!r} is sharded over processes: shape {value.shape}, sharding "
            f"{value.sharding}; this process holds a part only. Reduce it in the compiled step, "
            "with `jnp.mean` on global arrays or with `lerax_dist.reduce` inside `shard_map`."
        )
    if not _is_held(value, writes):
        raise ValueError(
            f"metric {name!r} is addressable only on processes {_holders(value)}, not on the "
            "process that writes it. Replicate it on all processes first, e.g. with "
            "`jax.experimental.multihost_utils.broadcast_one_to_all`."
        )
    _check_shape(name, shape)
    if not _is_real(value.dtype):
        raise TypeError(
            f"metric {name!r} has dtype {value.dtype}; metrics are real numbers. "
            "Log e.g. its absolute value."
        )


def _is_held(value: jax.Array, writes: bool) -> bool:
    """Whether the process that writes a value has it.

    A value of this process alone may be one that each process has for itself: only process 0 can
    tell that it has none.
    """
    return value.is_fully_addressable or (jax.process_index() if writes else 0) in _holders(value)


def _holders(value: jax.Array) -> list[int]:
    return sorted({device.process_index for device in value.sharding.device_set})


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if shape != ():
        raise ValueError(
            f"metric {name!r} must be a scalar, got shape {shape}. Reduce it first, e.g. with "
            "`.mean()`."
        )


@functools.cache
def _is_real(dtype: Any) -> bool:
    # By JAX: for NumPy bfloat16 is not a floating type.
    kinds = (np.bool_, np.integer, np.floating)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
