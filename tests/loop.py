"""A user's training loop in short: contexts, step states, a mesh."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

import lerax_dist as ld

KEY = jax.random.key(0)


def run_threads() -> set[threading.Thread]:
    """The threads of now, but that of the process for what its exit may wait for."""
    return {each for each in threading.enumerate() if each.name != "lerax_dist-callbacks"}


def mesh_of(*shape: int, kind: AxisType = AxisType.Auto) -> Mesh:
    """A mesh of the first devices, with the axes "a", "b" and "c"."""
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, ("a", "b", "c")[: len(shape)], axis_types=(kind,) * len(shape))


def step_states(steps: Any, average_return: Any = 1.0) -> ld.LoggingCallbackStepState:
    """Step states of environments that all have ended an episode of one step."""
    steps = jnp.asarray(steps, jnp.int32)
    returns = average_return + jnp.zeros(steps.shape)
    ones = jnp.ones_like(returns)
    return ld.LoggingCallbackStepState(
        steps, ones, ones.astype(int), ones.astype(bool), returns, ones
    )


def iteration(
    logger: ld.LoggingCallback,
    states: Any,
    training_log: Any,
    count: Any = 1,
    opt_state: Any = None,
    *,
    state: Any = None,
) -> Any:
    """One iteration of a loop; `state` is that of the callback."""
    state = ld.EmptyCallbackState() if state is None else state
    context = ld.IterationContext(
        state, states, None, None, jnp.asarray(count), opt_state, training_log
    )
    return logger.on_iteration(context, key=KEY)


def reset(logger: ld.LoggingCallback) -> Any:
    """The state of the callback at the start."""
    return logger.reset(ld.ResetContext(), key=KEY)


def training(state: Any, total: Any, *, count: Any = 0, **fields: Any) -> ld.TrainingContext:
    """What a loop says at its start and at its end."""
    given = {"env": None, "policy": None, "opt_state": None, "algorithm": None} | fields
    return ld.TrainingContext(
        state, step_states([0]), given["env"], given["policy"], total, jnp.asarray(count),
        given["opt_state"], given["algorithm"],
    )  # fmt: skip
