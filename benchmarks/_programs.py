"""The training programs that are measured: a scan inside `jit`, a scan inside `shard_map`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

import lerax_dist as ld
from benchmarks._work import SIZE, busy, start

ENVIRONMENTS = 4
# What logs an iteration inside a program: state, step states, count, metrics -> state.
OnIteration = Callable[[Any, Any, Array, dict[str, Array]], Any]


def mesh() -> Mesh:
    """All devices of the run in a row."""
    return Mesh(np.array(jax.devices()), ("d",), axis_types=(AxisType.Auto,))


def metrics_of(x: Array, count: int) -> dict[str, Array]:
    """`count` metrics of a state, each another mean, so that the compiler does not fuse them."""
    rows = x.reshape(-1, SIZE)[:SIZE]
    return {f"metric_{number}": rows[number % SIZE].mean() for number in range(count)}


def scan(logger: ld.LoggingCallback | None, length: int, metrics: int) -> Callable[..., Array]:
    """A training of `length` iterations on what one device sees: matrices, repeats -> matrices."""

    def train(x: Array, repeats: Array) -> Array:
        # Not before: the devices must not start before the processes have joined.
        key = jax.random.key(0)

        def iteration(carry: Any, _: None) -> tuple[Any, None]:
            x, state, count = carry
            x = busy(x, repeats)
            # Also if they are not logged: without them the compiler would make another step.
            values = metrics_of(x, metrics)
            x = x + 0 * sum(values.values())
            if logger is not None:
                context = ld.IterationContext(
                    state, step_states(x), None, None, count + 1, None, values
                )
                state = logger.on_iteration(context, key=key)
            return (x, state, count + 1), None

        state = None if logger is None else logger.reset(ld.ResetContext(), key=key)
        first = (x, state, jnp.zeros((), jnp.int32))
        (x, state, _), _ = lax.scan(iteration, first, None, length)
        if logger is not None:
            logger.flush_state(state)
        return x

    return train


def step_states(x: Array) -> Any:
    """Step states of a few environments of this device."""
    # Each device has its own, as environments that run on it would.
    own = x.reshape(-1)[:ENVIRONMENTS] * 0
    fresh = ld.LoggingCallbackStepState.initial()
    return jax.tree.map(lambda leaf: leaf + own.astype(leaf.dtype), fresh)


def compiled(form: str, train: Callable[..., Array]) -> tuple[Callable[..., Array], Array]:
    """A program over all devices, and its input.

    Args:
        form: `"scan"` for plain `jit` on arrays split over the devices, `"shard_map"` for that.
        train: what `scan` makes.
    """
    devices = mesh()
    split = NamedSharding(devices, P("d"))
    x = jax.jit(lambda: start(devices.size), out_shardings=split)()
    if form == "shard_map":
        mapped = jax.shard_map(
            train, mesh=devices, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=False
        )
        return jax.jit(mapped), x
    if devices.size == 1:
        return jax.jit(train), start(1)
    return jax.jit(train, out_shardings=split), x


def step(
    metrics: int, give: Callable[[dict[str, Array]], Mapping[str, Array]]
) -> tuple[Callable[..., Any], Array]:
    """One iteration for a Python loop: matrices, repeats -> matrices, metrics.

    Args:
        metrics: how many metrics there are on each device.
        give: what the step returns of them.
    """
    devices = mesh()

    def one(x: Array, repeats: Array) -> tuple[Array, Mapping[str, Array]]:
        x = busy(x, repeats)
        values = metrics_of(x, metrics)
        return x + 0 * sum(values.values()), give(values)

    if devices.size == 1:
        return jax.jit(one), start(1)
    mapped = jax.shard_map(
        one, mesh=devices, in_specs=(P("d"), P()), out_specs=(P("d"), P()), check_vma=False
    )
    split = NamedSharding(devices, P("d"))
    return jax.jit(mapped), jax.jit(lambda: start(devices.size), out_shardings=split)()
