import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lerax_dist import LoggingCallbackStepState

FIELDS = [
    "step",
    "episode_return",
    "episode_length",
    "episode_done",
    "average_return",
    "average_length",
]


def reference(rewards, dones, alpha):
    """The page's recurrence, in float32 as the devices compute it."""
    one, alpha32 = np.float32(1), np.float32(alpha)
    rest = np.float32(1.0 - alpha)
    ret = avg_ret = avg_len = np.float32(0)
    length, done = 0, False
    states = []
    for reward, ends in zip(rewards, dones, strict=True):
        ret = np.float32(ret * (one - np.float32(done)) + reward)
        length = length * (1 - int(done)) + 1
        done = bool(ends)
        if done:
            avg_ret = np.float32(np.float32(alpha32 * ret) + np.float32(rest * avg_ret))
            avg_len = np.float32(
                np.float32(alpha32 * np.float32(length)) + np.float32(rest * avg_len)
            )
        states.append((len(states) + 1, ret, length, done, avg_ret, avg_len))
    return states


def test_the_initial_state_is_zero_with_the_six_attributes_of_the_page():
    state = LoggingCallbackStepState.initial()
    assert [leaf.item() for leaf in jax.tree.leaves(state)] == [0, 0.0, 0, False, 0.0, 0.0]
    assert [getattr(state, field).shape for field in FIELDS] == [()] * 6
    assert state.step.dtype == jnp.int32
    assert state.average_return.dtype == jnp.float32


@pytest.mark.parametrize("alpha", [0.9, 0.5, 1.0, 0.013])
def test_numbers_equal_the_recurrence_to_the_bit(alpha):
    rng = np.random.default_rng(3)
    rewards = rng.normal(size=200).astype(np.float32)
    dones = rng.random(200) < 0.2
    state = LoggingCallbackStepState.initial()
    for reward, done, expected in zip(
        rewards, dones, reference(rewards, dones, alpha), strict=True
    ):
        state = state.next(jnp.asarray(reward), jnp.asarray(done), alpha)
        got = tuple(getattr(state, field).item() for field in FIELDS)
        assert got == tuple(np.asarray(value).item() for value in expected)


def test_the_running_return_and_length_restart_on_the_step_after_done():
    state = LoggingCallbackStepState.initial()
    state = state.next(jnp.float32(2.0), jnp.asarray(True), 0.9)
    assert (state.episode_return, state.episode_length, state.episode_done) == (2.0, 1, True)
    state = state.next(jnp.float32(5.0), jnp.asarray(False), 0.9)
    assert (state.episode_return, state.episode_length, state.episode_done) == (5.0, 1, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_a_reward_that_is_not_finite_spoils_its_own_episode_only(bad, alpha):
    state = LoggingCallbackStepState.initial()
    state = state.next(jnp.float32(3.0), jnp.asarray(True), alpha)
    state = state.next(jnp.float32(bad), jnp.asarray(False), alpha)
    state = state.next(jnp.float32(1.0), jnp.asarray(True), alpha)
    assert not np.isfinite([state.episode_return, state.average_return]).any()
    state = state.next(jnp.float32(1.0), jnp.asarray(False), alpha)
    assert state.episode_return == 1.0 and not np.isfinite(state.average_return)
    state = state.next(jnp.float32(1.0), jnp.asarray(True), alpha)
    assert state.average_return == np.float32(alpha) * np.float32(2.0)


def test_it_runs_under_jit_vmap_and_scan_with_any_reward_type():
    def step(state, reward):
        return jax.vmap(lambda s, r: s.next(r, r > 1, 0.9))(state, reward), None

    start = jax.vmap(lambda _: LoggingCallbackStepState.initial())(jnp.arange(3))
    for dtype in (jnp.bfloat16, jnp.int32, jnp.float32):
        rewards = jnp.ones((4, 3), dtype)
        end, _ = jax.jit(lambda s, r: jax.lax.scan(step, s, r))(start, rewards)
        assert end.episode_return.tolist() == [4.0] * 3
        assert end.episode_return.dtype == jnp.float32
