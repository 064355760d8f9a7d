"""The two messages that leave the devices: a row, and the start of a training."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Int

from lerax_dist.device._axes import find_axes
from lerax_dist.device._episodes import Episodes
from lerax_dist.device._pack import check_scalars, from_bits, merge, to_bits
from lerax_dist.device._transfer import Deliver, send

Unpack = Callable[[np.ndarray], tuple[int | None, dict[str, Any]]]


def send_row(
    receive: Callable[[Unpack, int], Deliver],
    scalars: Mapping[str, Any],
    step_state: Any,
    iteration: Int[Array, ""],
    *,
    axis_name: str | tuple[str, ...] | None,
    log_interval: int,
) -> None:
    """Reduce the metrics of an iteration and send them to the host, if it is one to log.

    The payload is the iteration, then the merged vector as int32. On iterations that are not
    logged there is neither a collective nor a callback.

    Args:
        receive: makes what takes the payload, given what makes step and metrics of it and the
            distance between rows.
        scalars: flat name to scalar or partial, this device's share.
        step_state: step states of this device's environments.
        iteration: number of the iteration.
        axis_name: axes to reduce over; `None` for all manual ones.
        log_interval: iterations whose number is a multiple of this are logged.
    """
    axes = find_axes(axis_name)
    # Before the branch, whose own errors would hide these.
    scalars = check_scalars(scalars)

    def row(scalars: Mapping[str, Any], step_state: Any, iteration: Int[Array, ""]) -> None:
        partials = {"episode/": Episodes(step_state)}
        schema, vector = merge(scalars, axes, partials=partials, step_state=step_state)
        dtype = np.dtype(vector.dtype)
        deliver = receive(lambda bits: schema.unpack(from_bits(bits, dtype)), log_interval)
        send(deliver, iteration[None], to_bits(vector), axes.manual)

    if log_interval == 1:
        row(scalars, step_state, iteration)
    else:
        due = iteration % log_interval == 0
        lax.cond(due, row, lambda *_: None, scalars, step_state, iteration)


def send_start(deliver: Deliver, iteration: Int[Array, ""], total: Any) -> None:
    """Tell the host that a training starts.

    Args:
        deliver: takes the payload: the iteration, then the total.
        iteration: iterations done before.
        total: steps that the training will take, if only the program knows; else 0.
    """
    body = jnp.asarray(total, jnp.int32)[None]
    send(deliver, iteration[None], body, find_axes(None).manual)
