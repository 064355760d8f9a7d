"""A metric's value may be a vector of fixed length, on its whole way from the step to the files."""

import json
from typing import final

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import iteration, mesh_of, reset, step_states

BINS = 4
VALUES = np.random.default_rng(0).uniform(0, BINS, (8, 32)).astype(np.float32)


class Histogram(ld.AbstractPartial):
    """Counts in unit bins, the largest value in each bin, and how many values there were."""

    values: jax.Array

    def maxima(self):
        inside = self.values[:, None].astype(int) == jnp.arange(BINS)[None]
        return (jnp.max(jnp.where(inside, self.values[:, None], -jnp.inf), axis=0),)

    def sums(self, maxima, first):
        inside = self.values[:, None].astype(int) == jnp.arange(BINS)[None]
        return (inside.sum(0), jnp.asarray(self.values.size))

    @staticmethod
    def finish(sums, maxima, numpy):
        counts, total = sums
        return ld.Finished({"/counts": counts, "/share": counts / total, "/max": maxima[0]}, total)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("rows_per_transfer", [1, 2])
def test_a_vector_is_merged_over_the_devices_and_read_back_from_the_files(
    tmp_path, devices, rows_per_transfer
):
    memory = ld.MemoryBackend()
    logger = ld.LoggingCallback(
        [memory, ld.JSONLBackend(tmp_path)],
        "r",
        log_dir=tmp_path,
        rows_per_transfer=rows_per_transfer,
    )
    share = VALUES[: 8 // devices * devices].reshape(devices, -1)
    mesh = mesh_of(devices)

    def train(values):
        state = reset(logger)
        for i in range(1, 4):
            log = {"loss": float(i), "h": Histogram(values.ravel())}
            state = iteration(logger, step_states([i]), log, i, state=state)
        logger.flush_state(state)
        return values

    mapped = jax.shard_map(train, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=False)
    jax.block_until_ready(jax.jit(mapped)(share))
    logger.close()
    assert logger.failures == ()
    values = share.ravel()
    counts = np.array([(values.astype(int) == i).sum() for i in range(BINS)])
    largest = np.array([values[values.astype(int) == i].max() for i in range(BINS)])
    run = ld.read_run(tmp_path / "r")
    for name, expected in (
        ("counts", counts),
        ("share", counts / values.size),
        ("max", largest),
    ):
        steps, read = run[f"train/h/{name}"]
        assert list(steps) == [devices, 2 * devices, 3 * devices]
        np.testing.assert_allclose(read, np.tile(expected, (3, 1)), rtol=1e-6)
        for _, vectors in memory.vectors:
            np.testing.assert_allclose(vectors[f"train/h/{name}"], expected, rtol=1e-6)
    lines = [
        json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    ]
    found = [line["train/h/counts"] for line in lines if "train/h/counts" in line]
    np.testing.assert_allclose(found, np.tile(counts, (3, 1)), rtol=1e-6)
    assert [loss for _, loss in zip(*run["train/loss"], strict=True)] == [1.0, 2.0, 3.0]


@final
class Vector(ld.AbstractPartial):
    """The sum of vectors, with a weight of its own."""

    value: jax.Array
    weight: jax.Array

    def sums(self, maxima, first):
        return (self.value, self.weight)

    @staticmethod
    def finish(sums, maxima, numpy):
        return ld.Finished({"": sums[0]}, sums[1])


def test_a_vector_without_a_value_is_left_out_and_one_of_nan_is_reported(tmp_path):
    vectors = [
        Vector(jnp.full(2, jnp.nan), jnp.asarray(0.0)),
        Vector(jnp.full(2, jnp.nan), jnp.asarray(1.0)),
        Vector(jnp.asarray([1.0, jnp.nan]), jnp.asarray(0.0)),
    ]
    logger = ld.LoggingCallback(ld.NoOpBackend(), "r", log_dir=tmp_path)
    with pytest.warns(ld.LoggingWarning, match="'train/v' is nan at step 2, the first"):
        for i, vector in enumerate(vectors, 1):
            iteration(logger, step_states([i]), {"v": vector}, i)
        logger.close()
    steps, values = ld.read_run(tmp_path / "r")["train/v"]
    assert list(steps) == [2, 3]
    np.testing.assert_array_equal(values, [[np.nan, np.nan], [1.0, np.nan]])
