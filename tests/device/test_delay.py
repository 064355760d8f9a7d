"""Rows that are merged one iteration later: the same rows, the last of them by the flush."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lerax_dist as ld
from tests.device.test_buffer import ENDED, LOSSES, RETURNS, check, expected_rows, run, train
from tests.loop import iteration, reset, step_states
from tests.memory import Memory


@pytest.mark.parametrize("devices", [0, 1, 4])
@pytest.mark.parametrize("log_interval", [1, 5])
def test_every_row_comes_once(tmp_path, devices, log_interval, order):
    rows = run(Memory(), tmp_path, devices, delay=True, log_interval=log_interval)
    check(rows, expected_rows(log_interval))


def test_the_rows_of_members_are_those_without_delay(tmp_path, order):
    def rows(folder, **options):
        memory = Memory()
        data = [np.stack([each, each[::-1]]) for each in (RETURNS, ENDED, LOSSES)]
        with ld.LoggingCallback(memory, log_dir=tmp_path / folder, **options) as logger:
            jax.block_until_ready(jax.jit(jax.vmap(lambda *d: train(logger, *d)))(*data))
        assert logger.failures == ()
        return [
            (step, {name: value for name, value in row.items() if not name.startswith("time/")})
            for step, row in memory.rows
        ]

    check(rows("later", delay=True), rows("at once"))


def test_what_is_left_is_said_and_flushed_by_hand(tmp_path):
    memory = Memory()
    logger = ld.LoggingCallback(memory, log_dir=tmp_path, delay=True)

    @jax.jit
    def step(state, count):
        return iteration(logger, step_states([0]), {"x": count}, count, state=state)

    state = jax.jit(lambda: reset(logger))()
    for count in range(1, 4):
        state = step(state, jnp.asarray(count))
    logger.flush()
    assert [row["train/x"] for _, row in memory.rows] == [1, 2]
    jax.block_until_ready(jax.jit(logger.flush_state)(state))
    logger.close()
    assert [row["train/x"] for _, row in memory.rows] == [1, 2, 3]
    assert logger.failures == ()

    logger = ld.LoggingCallback(memory, "other", log_dir=tmp_path, delay=True)
    jax.block_until_ready(step_once(logger))
    with pytest.warns(ld.LoggingWarning, match="1 rows are still buffered .*`delay=True`"):
        logger.close()


def step_once(logger):
    def step():
        return iteration(logger, step_states([0]), {"x": 1.0}, state=reset(logger))

    return jax.jit(step)()


def test_what_cannot_be_delayed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`delay=True` sends rows one by one"):
        ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path, delay=True, rows_per_transfer=2)
    with ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path, delay=True) as logger:
        with pytest.raises(ValueError, match="must be what `reset` returned, since `delay=True`"):
            jax.jit(lambda: iteration(logger, step_states([0]), {}))()
        many = {f"m{i}": 0.0 for i in range(20_000)}
        with pytest.raises(ValueError, match="keeps a row of at most 16384 numbers"):
            jax.eval_shape(lambda: iteration(logger, step_states([0]), many, state=reset(logger)))
