"""A program that counts from 0 continues the curve, or says once that it does not."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import lerax_dist as ld
from tests.docs.given import Algorithm
from tests.loop import iteration, step_states
from tests.memory import Memory
from tests.readers import current_rows, journal_records, journal_rows, journal_steps

KEY = jax.random.key(0)
# Of `Algorithm`: 4 environments of 16 steps an iteration.
TOTAL, EACH = 256, 64


def learn(logger):
    Algorithm().learn(None, None, TOTAL, key=KEY, callback=[logger])


def test_a_second_learn_on_one_logger_continues_the_curve(tmp_path):
    memory = Memory()
    with ld.LoggingCallback(memory, "r", log_dir=tmp_path) as logger:
        learn(logger)
        learn(logger)
        learn(logger)
    assert journal_steps(logger.run_dir) == list(range(EACH, 3 * TOTAL + 1, EACH))
    totals = [call[1] for call in memory.calls if call[0] == "start"]
    assert totals == [TOTAL, 2 * TOTAL, 3 * TOTAL]
    assert logger.failures == ()


def test_a_loop_that_counts_again_without_saying_so_is_reported_once(tmp_path):
    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path) as logger:
        step = jax.jit(lambda c: iteration(logger, step_states(c[None]), {"x": c}, c))
        for count in 3 * (1, 2, 3):
            step(jnp.asarray(count))
    (failure,) = logger.failures
    assert "iteration 1 at step 1 comes after iteration 3 at step 3" in failure.message
    assert "`on_training_start`" in failure.message
    assert journal_steps(logger.run_dir) == [1, 2, 3] * 3


def first_start(tmp_path):
    """A run that was killed, and the state in its last checkpoint."""
    logger = ld.LoggingCallback(Memory(), "r", log_dir=tmp_path)
    learn(logger)
    state = logger.state()
    logger.close(failed=True)
    assert state.last_step == TOTAL
    return state


def test_a_restored_policy_that_learns_from_step_0_continues_at_an_offset(tmp_path):
    state, memory = first_start(tmp_path), Memory()
    offset = state.last_step
    with ld.LoggingCallback(memory, log_dir=tmp_path, state=state, step_offset=offset) as logger:
        # The number of parameters, an evaluation in compiled code, and the training.
        logger.emit({"parameters": 10.0}, 0)
        jax.jit(lambda: logger.emit({"eval": 1.0}, (jnp.asarray(1), 100)))()
        learn(logger)
    assert logger.failures == ()
    rows = current_rows(journal_records(logger.run_dir))
    train = [row.step for row in rows if "train/loss" in row.metrics]
    assert train == list(range(EACH, 2 * TOTAL + 1, EACH))
    others = {name: row.step for row in rows for name in row.metrics}
    assert (others["parameters"], others["eval"]) == (TOTAL, TOTAL + 100)
    assert ("start", 2 * TOTAL, 0) in memory.calls
    # The pace is that of the steps, wherever they lie.
    pace = [row.metrics.get("time/steps_per_second") for row in rows if row.iteration]
    assert all(each is None or each > 0 for each in pace)


def test_one_that_lies_on_top_of_the_old_curve_is_reported_once_with_the_fix(tmp_path):
    state = first_start(tmp_path)
    with ld.LoggingCallback(Memory(), log_dir=tmp_path, state=state) as logger:
        learn(logger)
    (failure,) = logger.failures
    assert f"step {EACH}, below step {TOTAL + 1} at which this start" in failure.message
    assert "`step_offset`, e.g. `state.last_step`" in failure.message


@pytest.mark.parametrize("start", ["state", "start_step"])
def test_a_number_of_parameters_at_step_0_is_no_program_that_counts_from_0(tmp_path, start):
    state = first_start(tmp_path)
    given: dict[str, Any] = {"state": state} if start == "state" else {"start_step": TOTAL + 1}
    with ld.Logger(Memory(), "r", log_dir=tmp_path, **given) as logger:
        logger.log({"parameters": 10.0}, 0)
        logger.log({"train/loss": 1.0}, TOTAL + 1)
    assert logger.failures == ()
    old = journal_rows(tmp_path / "r")[: TOTAL // EACH]
    rows = current_rows(journal_records(logger.run_dir))
    assert [row.step for row in rows] == [*(step for step, _ in old), 0, TOTAL + 1]


def test_the_offset_moves_what_a_plain_loop_logs(tmp_path):
    memory = Memory()
    with ld.Logger(memory, "r", log_dir=tmp_path, total_steps=3, step_offset=2**40) as logger:
        for step in range(3):
            logger.log({"x": 1.0}, step)
        logger.log_video("v", np.zeros((2, 8, 8, 3), np.uint8), 1)
    assert journal_steps(logger.run_dir) == [2**40, 2**40 + 1, 2**40 + 2]
    assert ("start", 2**40 + 3, 0) in memory.calls
    assert [step for _, _, step, _ in memory.clips] == [2**40 + 1]


@pytest.mark.parametrize(("offset", "error"), [(-1, ValueError), (1.5, TypeError)])
def test_an_offset_that_is_none_is_refused(tmp_path, offset, error):
    with pytest.raises(error, match=f"`step_offset` must be .*got {offset}"):
        ld.Logger(Memory(), log_dir=tmp_path, step_offset=offset)


def test_the_last_step_of_a_state():
    assert ld.RunState.empty().last_step == 0
