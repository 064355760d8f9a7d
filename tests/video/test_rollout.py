"""Real gymnax environments are stepped as by hand."""

import re
from pathlib import Path

import gymnax
import jax
import numpy as np
import pytest
from gymnax.wrappers import LogWrapper
from jax import numpy as jnp

from lerax_dist.video._render import choose_renderer
from lerax_dist.video._rollout import play_gymnax

KEY = jax.random.key(5)
STEPS = 24
ROOT = Path(__file__).parents[2]


def unmarked(array):
    return array


def push_right(policy, observation, key):
    assert policy == "policy"
    return jnp.int32(1)


def test_an_episode_that_ends_restarts_also_inside_a_wrapper():
    env, _ = gymnax.make("CartPole-v1")

    def played(env):
        return play_gymnax(env, "policy", push_right, KEY, STEPS, unmarked)

    states, wrapped = jax.jit(lambda: (played(env), played(LogWrapper(env))))()
    # Pushed one way the pole falls after about nine steps, and `time` starts again at 0.
    starts = np.flatnonzero(states.time == 0)
    assert starts[0] == 0
    assert len(starts) == 3
    assert set(np.diff(starts)) <= {9, 10}
    np.testing.assert_array_equal(np.diff(states.time)[states.time[1:] > 0], 1)
    assert (np.abs(np.asarray(states.theta)) < 0.22).all()
    # Each step equals one of the environment itself.
    for i in (0, 1, 12):
        now = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        after = env.step(KEY, now, 1)[1]
        np.testing.assert_allclose(after.theta, states.theta[i + 1], rtol=1e-6)
    assert type(wrapped) is type(states)
    assert wrapped.x.shape == (STEPS,)


def test_a_policy_that_is_a_function_needs_no_act():
    env, _ = gymnax.make("Pendulum-v1")
    seen = []

    def policy(observation, *, key):
        seen.append(observation.shape)
        return jnp.zeros(1)

    states = play_gymnax(env, policy, None, KEY, 3, unmarked)
    assert states.theta.shape == (3,)
    assert seen[0] == (3,)


def test_without_a_way_to_draw_the_error_names_render_and_the_example():
    env, _ = gymnax.make("Catch-bsuite")
    with pytest.raises(
        ValueError, match="Catch-bsuite has no `render_frame.* Pass `render=`.*"
    ) as e:
        choose_renderer(env, env, None)
    (path,) = re.findall(r"examples/\S+\.py", str(e.value))
    assert (ROOT / path).exists()
