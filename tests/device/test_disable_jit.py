"""Under `jax.disable_jit()`, where debugging starts, every value is logged as it is otherwise."""

import jax
from jax import numpy as jnp

import lerax_dist as ld
from tests.loop import iteration, step_states
from tests.readers import journal_rows


def test_a_plain_loop_logs_arrays_and_reduced_metrics(tmp_path):
    with jax.disable_jit(), ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        logger.log({"a": jnp.asarray(1.5), "b": jnp.asarray(2), "c": 3.0}, 0)
        reduced = ld.reduce({"mean": ld.Mean.of(jnp.arange(4.0)), "max": ld.Max(7)})
        logger.log(reduced, 1)
        logger.log([{"train": reduced}, ld.Mean.of(jnp.arange(4.0)), jnp.ones((1, 1))], 2)
    assert logger.failures == ()
    assert journal_rows(tmp_path / "r") == [
        (0, {"a": 1.5, "b": 2.0, "c": 3.0}),
        (1, {"mean": 1.5, "max": 7.0}),
        (2, {"0/train/mean": 1.5, "0/train/max": 7.0, "1": 1.5, "2": 1.0}),
    ]


def test_a_step_logs_its_row(tmp_path):
    with jax.disable_jit(), ld.LoggingCallback(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        for i in range(3):
            iteration(logger, step_states([i, i]), {"loss": jnp.asarray(0.5)}, i)
    assert logger.failures == ()
    rows = journal_rows(tmp_path / "r")
    assert [(step, row["train/loss"]) for step, row in rows] == [(0, 0.5), (2, 0.5), (4, 0.5)]
