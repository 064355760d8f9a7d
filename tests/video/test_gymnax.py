"""Real gymnax environments are played as by hand, and drawn."""

import gymnax
import jax
import numpy as np
import pytest
from gymnax.wrappers import LogWrapper
from jax import numpy as jnp

from lerax_dist.video._draw import choose_drawing, make_frames
from lerax_dist.video._gymnax import play_gymnax

KEY = jax.random.key(5)
STEPS = 24


def same(array):
    return array


def push_right(policy, observation, key):
    assert policy == "policy"
    return jnp.int32(1)


def test_an_episode_that_ends_starts_again_also_inside_a_wrapper():
    env, _ = gymnax.make("CartPole-v1")

    def played(env):
        return play_gymnax(env, "policy", push_right, KEY, STEPS, same)

    states, wrapped = jax.jit(lambda: (played(env), played(LogWrapper(env))))()
    # Pushed one way a pole falls after nine steps or so, and time counts anew.
    starts = np.flatnonzero(states.time == 0)
    assert starts[0] == 0
    assert len(starts) == 3
    assert set(np.diff(starts)) <= {9, 10}
    np.testing.assert_array_equal(np.diff(states.time)[states.time[1:] > 0], 1)
    assert (np.abs(np.asarray(states.theta)) < 0.22).all()
    # Every step is the environment's own, by hand.
    for place in (0, 1, 12):
        now = jax.tree.map(lambda leaf, place=place: leaf[place], states)
        after = env.step(KEY, now, 1)[1]
        np.testing.assert_allclose(after.theta, states.theta[place + 1], rtol=1e-6)
    assert type(wrapped) is type(states)
    assert wrapped.x.shape == (STEPS,)


def test_a_policy_that_is_a_function_needs_no_act():
    env, _ = gymnax.make("Pendulum-v1")
    seen = []

    def policy(observation, *, key):
        seen.append(observation.shape)
        return jnp.zeros(1)

    states = play_gymnax(env, policy, None, KEY, 3, same)
    assert states.theta.shape == (3,)
    assert seen[0] == (3,)


@pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_the_classics_are_drawn_from_their_states(name):
    env, params = gymnax.make(name)
    _, state = env.reset(KEY, params)
    states = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * 2), state)
    drawing = choose_drawing(env, env, None)
    frames = make_frames(drawing.see(states), drawing.frame, 2, 64, 48)
    assert len(np.unique(frames)) > 3
    np.testing.assert_array_equal(frames[0], frames[1])


def test_an_environment_without_a_picture_is_refused_by_its_name():
    env, _ = gymnax.make("Catch-bsuite")
    with pytest.raises(ValueError, match="Catch-bsuite cannot be drawn.* Give `render=`"):
        choose_drawing(env, env, None)
