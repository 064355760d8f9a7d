"""Steps are counted exactly: in parts that survive a float32 mean over any number of devices.

A pure test of what the package keeps to itself; through the door see `tests/test_callback.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist._schema import LIMBS, join_limbs
from lerax_dist.device._step_state import split_steps


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20))
def test_the_sum_of_any_counters_is_exact(steps):
    limbs = split_steps(jnp.asarray(steps, jnp.int32))
    assert limbs.shape == (LIMBS,)
    assert (limbs < 256).all()
    assert join_limbs(np.asarray(limbs)) == sum(steps)


def test_counters_of_64_bits_are_exact():
    with jax.enable_x64(True):
        steps = jnp.asarray([2**32 + 5, 2**40 + 1])
        assert join_limbs(np.asarray(split_steps(steps))) == 2**32 + 5 + 2**40 + 1


def test_a_single_counter_needs_no_axis():
    assert join_limbs(np.asarray(split_steps(jnp.asarray(123456789, jnp.int32)))) == 123456789


def test_a_hundred_thousand_environments_at_a_billion_steps_are_exact():
    steps = np.full(100_000, 10**9) + np.arange(100_000)
    assert join_limbs(np.asarray(split_steps(jnp.asarray(steps, jnp.int32)))) == int(steps.sum())


@given(st.integers(1, 2**15 - 1), st.integers(0, 2**31 - 1))
def test_a_float32_mean_over_any_number_of_devices_gives_the_exact_total(devices, step):
    limbs = np.asarray(split_steps(jnp.asarray(step, jnp.int32)))
    mean = (limbs * np.float32(devices)) / np.float32(devices)
    assert join_limbs(mean.astype(np.float64) * devices) == step * devices


def test_a_float32_mean_of_unequal_limbs_gives_the_exact_total():
    rng = np.random.default_rng(0)
    for devices in (3, 7, 48, 1000, 8960, 32767):
        steps = rng.integers(0, 2**31, devices)
        places = 256 ** np.arange(LIMBS)
        limbs = ((steps[:, None] // places) % 256).astype(np.float32)
        mean = limbs.sum(0, dtype=np.float32) / np.float32(devices)
        assert join_limbs(mean.astype(np.float64) * devices) == int(steps.sum())
