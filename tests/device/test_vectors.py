"""A metric's value may be a vector of fixed length, on its whole way from the step to the files."""

import json

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


class Shares(ld.AbstractPartial):
    """Each number's share of all, none if there are none."""

    counts: jax.Array

    def sums(self, maxima, first):
        return (self.counts,)

    @staticmethod
    def finish(sums, maxima, numpy):
        (counts,) = sums
        total = counts.sum(axis=0)
        return ld.Finished({"": counts / total}, total)


def test_a_vector_without_a_value_is_left_out_and_one_that_is_nan_is_kept_and_named(tmp_path):
    memory = ld.MemoryBackend()
    with ld.LoggingCallback(memory, "r", log_dir=tmp_path) as logger:
        for i, counts in enumerate(([1.0, 3.0], [0.0, 0.0], [np.nan, 1.0]), 1):
            iteration(logger, step_states([i]), {"shares": Shares(jnp.asarray(counts))}, i)
        with pytest.warns(ld.LoggingWarning, match="'train/shares' is nan throughout at step 3"):
            logger.flush()
    steps, read = ld.read_run(tmp_path / "r")["train/shares"]
    assert list(steps) == [1, 3]
    np.testing.assert_array_equal(read, [[0.25, 0.75], [np.nan, np.nan]])
    assert [step for step, _ in memory.vectors] == [1, 3]


class Busiest(ld.AbstractPartial):
    """The largest mean of a bin: a scalar, whose weights are those of all bins."""

    values: jax.Array

    def sums(self, maxima, first):
        inside = self.values[:, None].astype(int) == jnp.arange(BINS)[None]
        return (inside.sum(0), jnp.where(inside, self.values[:, None], 0.0).sum(0))

    @staticmethod
    def finish(sums, maxima, numpy):
        counts, totals = sums
        return ld.Finished({"": numpy.max(totals / counts, axis=0)}, counts)


def test_a_scalar_of_several_weights_is_absent_if_all_are_zero(tmp_path):
    memory = ld.MemoryBackend()
    with ld.LoggingCallback(memory, "r", log_dir=tmp_path) as logger:
        for values in ([0.5] * 2, [0.5, 1.5, 2.5, 3.5], []):
            log = {"x": 1.0, "busiest": Busiest(jnp.asarray(values, jnp.float32))}
            jax.jit(lambda log: iteration(logger, step_states([1]), log))(log)
    rows = [row.get("train/busiest", "absent") for _, row in memory.rows]
    assert np.isnan(rows[0]) and rows[1:] == [3.5, "absent"]
    assert [row["train/x"] for _, row in memory.rows] == [1.0] * 3
