"""A vmapped axis that is named holds data, as a device axis does: all of it counts, once."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import iteration, mesh_of, step_states
from tests.readers import journal_rows

DEVICES, SEEDS = 4, 3
DATA = np.random.default_rng(0).normal(size=(DEVICES, SEEDS)).astype(np.float32)
AXES = ("a", "seed")


def over_all(function, how):
    """`function` of one number, mapped over `DATA`: seeds by `vmap`, devices by `how`."""
    seeds = jax.vmap(function, axis_name="seed")
    if how == "pmap":
        return jax.pmap(seeds, axis_name="a")(DATA)
    mesh = mesh_of(DEVICES)
    checks = how == "shard_map"
    mapped = jax.shard_map(seeds, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=checks)
    return jax.jit(mapped)(DATA.ravel())


EACH_WAY = pytest.mark.parametrize("how", ["pmap", "shard_map, unchecked"])


@EACH_WAY
@pytest.mark.parametrize("axis_name", [AXES, ("seed", "a")])
def test_reduce_over_a_vmapped_and_a_device_axis_equals_numpy(how, axis_name):
    def step(x):
        metrics = {
            "plain": x,
            "mean": ld.Mean.of(x),
            "sum": ld.Sum(x),
            "count": ld.Sum(1.0),
            "max": ld.Max(x),
            "min": ld.Min(x),
            "last": ld.Last(7.25),
        }
        # Something of each device and seed, so that types say that all of it differs.
        return {name: value + 0 * x for name, value in ld.reduce(metrics, axis_name).items()}

    reduced = over_all(step, how)
    expected = {
        "plain": DATA.mean(),
        "mean": DATA.mean(),
        "sum": DATA.sum(),
        "count": DATA.size,
        "max": DATA.max(),
        "min": DATA.min(),
        "last": 7.25,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(np.ravel(reduced[name]), value, rtol=1e-6, err_msg=name)


@EACH_WAY
def test_a_row_counts_the_steps_of_every_seed_on_every_device(tmp_path, how):
    with ld.LoggingCallback(ld.NoOpBackend(), "r", log_dir=tmp_path, axis_name=AXES) as logger:

        def step(x):
            # 2**24 + 1 is the first whole number that float32 lacks.
            states = step_states(jnp.full(2, 2**24 + 1) + (0 * x).astype(int), x)
            iteration(logger, states, {"x": x, "n": ld.Sum(1.0 + 0 * x)})
            return x

        jax.block_until_ready(over_all(step, how))
    ((total, row),) = journal_rows(tmp_path / "r")
    assert total == 2 * (2**24 + 1) * DATA.size
    assert row["train/n"] == row["episode/count"] / 2 == DATA.size
    np.testing.assert_allclose(row["train/x"], DATA.mean(), rtol=1e-6)
    np.testing.assert_allclose(row["episode/return_min"], DATA.min(), rtol=1e-6)
    np.testing.assert_allclose(row["episode/return_std"], DATA.std(), rtol=1e-5)


def test_where_jax_has_no_collective_over_a_vmapped_axis_that_is_said():
    with pytest.raises(ValueError, match="vmapped axis 'seed' .*`check_vma=False`"):
        over_all(lambda x: ld.reduce({"x": x}, AXES)["x"] + 0 * x, "shard_map")


def test_the_smallest_value_0_has_no_sign():
    assert not np.signbit(ld.reduce({"min": ld.Min(0.0)})["min"])
