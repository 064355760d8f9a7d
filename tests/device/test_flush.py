"""Rows that wait are sent by a flush, or the flush says why it cannot send them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import KEY, iteration, mesh_of, reset, step_states, training
from tests.memory import Memory

EARLY = "was traced before `on_iteration`.*Call `flush_state` after"


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def logger(memory, tmp_path):
    with ld.LoggingCallback(memory, log_dir=tmp_path, rows_per_transfer=4) as logger:
        yield logger


def log(logger, state, count):
    return iteration(logger, step_states([1]), {"n": count.astype(float)}, count, state=state)


def end(logger, state):
    return logger.on_training_end(training(state, 0), key=KEY)


def logged(logger, memory):
    logger.flush()
    assert not logger.failures
    return [row["train/n"] for _, row in memory.rows]


def test_a_flush_that_is_traced_before_any_row_is_refused(logger):
    flush = jax.jit(logger.flush_state)
    with pytest.raises(ValueError, match=EARLY):
        flush(reset(logger))


def loop(logger, *, flush_first):
    """Six iterations in one scan, flushed every third time."""

    def flush(state, due):
        return jax.lax.cond(due, logger.flush_state, lambda state: state, state)

    def iterate(state, count):
        if flush_first:
            state = flush(state, (count - 1) % 3 == 0)
        state = log(logger, state, count)
        if not flush_first:
            state = flush(state, count % 3 == 0)
        return state, None

    state, _ = jax.lax.scan(iterate, reset(logger), jnp.arange(1, 7))
    return state


def test_in_a_loop_a_flush_comes_behind_the_iteration(logger, memory):
    with pytest.raises(ValueError, match=EARLY):
        jax.jit(lambda: loop(logger, flush_first=True))()
    jax.block_until_ready(jax.jit(lambda: loop(logger, flush_first=False))())
    assert logged(logger, memory) == [1, 2, 3, 4, 5, 6]


def test_rows_of_another_process_are_flushed_once_a_step_is_traced(logger, memory, tmp_path):
    """As they come from a checkpoint."""
    with pytest.warns(ld.LoggingWarning, match="still buffered on the devices"):
        with ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=4) as earlier:
            state = log(earlier, reset(earlier), jnp.asarray(1))
            state = log(earlier, state, jnp.asarray(2))
    with pytest.raises(ValueError, match=EARLY):
        logger.flush_state(state)
    jax.eval_shape(lambda state, count: log(logger, state, count), state, jnp.asarray(0))
    logger.flush_state(state)
    assert logged(logger, memory) == [1, 2]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_training_without_an_iteration_ends_in_peace(wrap, logger, memory):
    wrap(lambda: end(logger, reset(logger)))()
    assert logged(logger, memory) == []


def test_a_flush_traced_too_early_is_not_taken_for_one_of_the_rows(memory, tmp_path):
    with (
        pytest.warns(ld.LoggingWarning, match="still buffered on the devices"),
        ld.LoggingCallback(memory, log_dir=tmp_path, rows_per_transfer=4) as logger,
    ):
        state = logger.flush_state(reset(logger))
        log(logger, state, jnp.asarray(1))


def test_rows_of_each_device_are_not_flushed_outside_of_the_shard_map(logger):
    """Also without type checks, where the first device's rows would pass for those of all."""
    mesh = mesh_of(4)
    mapped = jax.shard_map(
        lambda counts: log(logger, reset(logger), counts[0]),
        mesh=mesh,
        in_specs=P("a"),
        out_specs=P(),
        check_vma=False,
    )
    state = jax.jit(mapped)(jnp.arange(4))
    with pytest.raises(ValueError, match="all inside the same `shard_map`"):
        logger.flush_state(state)
    with pytest.raises(ValueError, match="all inside the same `shard_map`"):
        jax.jit(lambda state: end(logger, state))(state)
    flushed = jax.shard_map(
        logger.flush_state, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False
    )
    jax.block_until_ready(jax.jit(flushed)(state))


def test_steps_over_other_devices_are_told_from_other_metrics(logger):
    mesh = mesh_of(2)

    def step(counts):
        log(logger, reset(logger), counts[0])
        return counts

    jax.eval_shape(step, jnp.arange(2))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=P("a"), out_specs=P("a"))
    with pytest.raises(ValueError, match="the same number of devices, got 2 after 1"):
        jax.eval_shape(mapped, jnp.arange(2))
    # Or its last row would be said to wait.
    logger.flush_state(reset(logger))
