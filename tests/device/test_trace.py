"""What tracing a step costs: metrics are packed once."""

import jax
import pytest
from jax import numpy as jnp

import lerax_dist as ld
from tests.loop import iteration, mesh_of, reset, step_states

CALLS = []


class Counted(ld.AbstractPartial):
    """A sum that records each time it is packed."""

    value: jax.Array

    def sums(self, maxima, first):
        CALLS.append("sums")
        return (self.value,)

    @staticmethod
    def finish(sums, maxima, numpy):
        return ld.Finished({"": sums[0]}, 1)


@pytest.mark.parametrize("log_interval", [1, 2])
@pytest.mark.parametrize("rows_per_transfer", [1, 3])
@pytest.mark.parametrize("mapped", [False, True])
def test_metrics_are_packed_once_a_trace(tmp_path, log_interval, rows_per_transfer, mapped):
    with ld.LoggingCallback(
        ld.NoOpBackend(),
        log_dir=tmp_path,
        log_interval=log_interval,
        rows_per_transfer=rows_per_transfer,
    ) as logger:

        def step(x):
            log = {"n": Counted(x.sum())}
            state = iteration(logger, step_states([1]), log, state=reset(logger))
            logger.flush_state(state)
            return x

        if mapped:
            spec = jax.sharding.PartitionSpec("a")
            step = jax.shard_map(
                step, mesh=mesh_of(2), in_specs=spec, out_specs=spec, check_vma=False
            )
        CALLS.clear()
        jax.jit(step).lower(jnp.ones(2))
        assert CALLS == ["sums"]


def test_reduce_packs_its_metrics_once_a_trace():
    CALLS.clear()
    jax.jit(lambda x: ld.reduce({"n": Counted(x)})).lower(jnp.ones(()))
    assert CALLS == ["sums"]
