"""An environment whose rollouts NumPy can reproduce bit for bit."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

GOAL = 20.0


class State(NamedTuple):
    """Position of the walker, and number of episodes it has started."""

    position: Any
    starts: Any


class Walk:
    """Each action is a distance to walk; the episode ends at the goal. Has gymnax's methods."""

    name = "Walk"
    default_params = None

    def __init__(self, on_step=None):
        self._on_step = on_step

    def reset(self, key, params=None):
        state = State(0.0, 1)
        return jnp.float32(0), state

    def step(self, key, state, action, params=None):
        if self._on_step is not None:
            jax.debug.callback(self._on_step)
        after = state.position + action
        done = after >= GOAL
        position = jnp.where(done, jnp.float32(0), after)
        state = State(position, state.starts + done.astype(state.starts.dtype))
        return position, state, jnp.float32(1), done, jnp.bool_(False), {}

    def render_frame(self, state, width, height):
        return draw(state, width, height)


def draw(state, width, height):
    """A red column at the position; green is the number of episodes."""
    assert type(state.position) is np.float32, type(state.position)
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, int(state.position) % width, 0] = 255
    frame[:, :, 1] = state.starts
    return frame


def act(policy, observation, key):
    return policy


def expected_states(stride, steps):
    """The states of a rollout, computed with NumPy."""
    position, starts, states = np.float32(0), 1, []
    for _ in range(steps):
        states.append(State(position, starts))
        position = position + np.float32(stride)
        if position >= GOAL:
            position, starts = np.float32(0), starts + 1
    return states


def expected_frames(stride, steps, width, height):
    return np.stack([draw(state, width, height) for state in expected_states(stride, steps)])
