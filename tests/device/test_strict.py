"""A user's strict settings of JAX hold for the user's code, and the package's passes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import iteration, mesh_of, reset
from tests.memory import Memory


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("devices", [1, 3, 4])
def test_shapes_and_types_need_no_promotion(tmp_path, devices, together):
    """Maxima are sent in slots on four devices, and have a collective of their own on three."""

    def step(average):
        states = jax.vmap(lambda _: ld.LoggingCallbackStepState.initial())(average)
        each = jax.vmap(lambda state, x: state.next(x, jnp.asarray(True), logger.alpha))
        log = {
            "plain": average.mean(),
            "partials": {
                "mean": ld.Mean.of(average, where=average > 1),
                "max": ld.Max(average.max()),
                "last": ld.Last(7),
            },
        }

        def iterate(carry, count):
            state, states = carry
            states = each(states, average)
            return (iteration(logger, states, log, count, state=state), states), None

        start = (reset(logger), each(states, average))
        (state, _), _ = jax.lax.scan(iterate, start, jnp.arange(1, 4))
        logger.flush_state(state)
        return ld.reduce(log)

    mesh = mesh_of(devices)
    backend = Memory()
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        ld.LoggingCallback(backend, log_dir=tmp_path, rows_per_transfer=together) as logger,
    ):
        mapped = jax.shard_map(
            lambda x: dict(step(x)), mesh=mesh, in_specs=P("a"), out_specs=P(), check_vma=False
        )
        in_step = jax.jit(mapped)(jnp.arange(12.0))
    assert not logger.failures
    assert [step for step, _ in backend.rows] == [24, 36, 48]
    for name, value in {"partials/mean": 6.5, "partials/max": 11.0, "partials/last": 7.0}.items():
        np.testing.assert_allclose(in_step[name], value, rtol=1e-6)
        np.testing.assert_allclose(backend.rows[-1][1][f"train/{name}"], value, rtol=1e-6)
