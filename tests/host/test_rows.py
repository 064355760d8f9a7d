"""Rows from the devices: their order, their times and rates, and what they leave out."""

import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lerax_dist as ld
from tests.loop import iteration, reset, step_states, training
from tests.memory import Batches, Memory
from tests.readers import journal_records, journal_row_records, journal_rows, journal_steps


def arrive(logger, *counts, state=None, **metrics):
    """Rows of these iterations reach the host in this order; their steps are their numbers."""
    for count in counts:
        log = metrics | {"x": float(count)}
        state = iteration(logger, step_states([count]), log, count, state=state)
        jax.effects_barrier()
    return state


def start(logger, state=None, count=0):
    logger.on_training_start(
        training(ld.EmptyCallbackState() if state is None else state, 0, count=count),
        key=jax.random.key(0),
    )
    jax.effects_barrier()


def open_logger(tmp_path, backend=None, **options):
    return ld.LoggingCallback(backend or Memory(), "r", log_dir=tmp_path, **options)


def test_rows_that_overtake_others_wait_for_them(tmp_path):
    with open_logger(tmp_path) as logger:
        arrive(logger, 1, 3, 4, 2, 6, 5, 7)
    assert journal_steps(logger.run_dir) == [1, 2, 3, 4, 5, 6, 7]
    assert [row.iteration for row in journal_row_records(logger.run_dir)] == [1, 2, 3, 4, 5, 6, 7]


def test_two_rows_of_one_iteration_that_overtake_the_one_before_are_both_kept(tmp_path):
    """A program that logs training and evaluation in the same iteration."""
    with open_logger(tmp_path) as logger:
        arrive(logger, 1, 3)
        arrive(logger, 3, evaluation=1.0)
        arrive(logger, 2, 4)
    assert journal_steps(logger.run_dir) == [1, 2, 3, 3, 4]
    names = [set(row.metrics) for row in journal_row_records(logger.run_dir)]
    assert ["train/evaluation" in each for each in names] == [False, False, False, True, False]


def test_rows_are_put_in_order_also_after_a_pause(tmp_path):
    with open_logger(tmp_path) as logger:
        arrive(logger, 0)
        logger.flush()
        # Longer than a row waits for one before it.
        threading.Event().wait(1.2)
        arrive(logger, 2, 1)
    assert journal_steps(logger.run_dir) == [0, 1, 2]


def test_rows_that_wait_for_their_turn_come_before_the_close(tmp_path):
    """A loop that counts by tens, and does not say so."""
    with open_logger(tmp_path) as logger:
        arrive(logger, 0, 10, 20)
    assert journal_steps(logger.run_dir) == [0, 10, 20]
    assert journal_records(logger.run_dir)[-1].kind == "close"


def test_a_row_that_never_comes_holds_up_those_behind_it_for_a_moment_only(tmp_path):
    backend = Memory()
    with open_logger(tmp_path, backend) as logger:
        arrive(logger, 1, 3)
        deadline = threading.Event()
        for _ in range(2000):
            if len(backend.rows) == 2:
                break
            deadline.wait(0.01)
        assert [step for step, _ in backend.rows] == [1, 3]
        # One that comes after all is written all the same.
        arrive(logger, 2, 4)
    assert journal_steps(logger.run_dir) == [1, 3, 2, 4]


def test_an_interval_is_no_gap(tmp_path):
    backend = Memory()
    with open_logger(tmp_path, backend, log_interval=7) as logger:
        arrive(logger, 7, 21, 14, 28)
    assert journal_steps(logger.run_dir) == [7, 14, 21, 28]


def test_another_training_that_counts_from_the_start_again_continues_the_curve(tmp_path):
    with open_logger(tmp_path) as logger:
        start(logger)
        arrive(logger, 1, 2, 4)
        start(logger)
        arrive(logger, 1, 3, 2)
        start(logger)
        arrive(logger, 1, 2)
        # One that goes on by itself is left alone.
        start(logger)
        arrive(logger, 20, 21)
    assert journal_steps(logger.run_dir) == [1, 2, 4, 5, 6, 7, 8, 9, 20, 21]
    assert logger.failures == ()


def test_rows_of_one_message_have_times_of_their_own_between_it_and_the_one_before(tmp_path):
    backend = Batches()
    with open_logger(tmp_path, backend, rows_per_transfer=4) as logger:
        state = logger.flush_state(arrive(logger, 1, state=reset(logger)))
        jax.effects_barrier()
        threading.Event().wait(0.1)
        arrive(logger, 2, 3, 4, 5, state=state)
    times = [row.time for row in journal_row_records(logger.run_dir)]
    gaps = np.diff(times)
    assert len(gaps) == 4 and gaps[0] > 0.02
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-3)
    assert backend.times == times
    seconds = [row["time/iteration_seconds"] for _, row in backend.rows[1:]]
    np.testing.assert_allclose(seconds, gaps, atol=2e-3)


def test_rates_are_of_the_time_since_the_row_before(tmp_path):
    backend = Batches()
    with open_logger(tmp_path, backend) as logger:
        arrive(logger, 5, 9)
    (_, first), (_, second) = journal_rows(logger.run_dir)
    # There is nothing to compare the first with.
    assert not any(name.startswith("time/") for name in first)
    seconds = second["time/iteration_seconds"]
    # Four iterations lie between them, and as many steps.
    assert second["time/steps_per_second"] == pytest.approx(1 / seconds)
    gap = np.diff(backend.times)[0]
    assert seconds == pytest.approx(gap / 4, rel=0.2, abs=1e-3)


def test_a_training_has_rates_from_its_first_row_on_without_the_steps_before_it(tmp_path):
    fresh, resumed = Memory(), Memory()
    for backend, count in ((fresh, 0), (resumed, 7)):
        with open_logger(tmp_path, backend) as logger:
            start(logger, count=count)
            arrive(logger, count + 1)
    for backend, names in (
        (fresh, {"time/steps_per_second", "time/iteration_seconds"}),
        (resumed, {"time/iteration_seconds"}),
    ):
        assert {name for name in backend.rows[0][1] if name.startswith("time/")} == names


@pytest.mark.parametrize("together", [1, 7])
def test_what_is_not_there_yet_is_left_out_of_that_row_alone(tmp_path, together):
    """Of `x` there is nothing in each third row, alone and among rows of one message."""
    backend = Memory()

    @jax.jit
    def step(state, count):
        log = {"x": ld.Mean.of(count[None].astype(float), where=count[None] % 3 > 0), "y": -count}
        return iteration(logger, step_states([count]), log, count, state=state)

    with open_logger(tmp_path, backend, rows_per_transfer=together) as logger:
        state = reset(logger)
        for count in range(1, 8):
            state = step(state, jnp.int32(count))
    got = [
        (at, {name: value for name, value in row.items() if name.startswith("train/")})
        for at, row in backend.rows
    ]
    assert got == [
        (n, ({} if n % 3 == 0 else {"train/x": n}) | {"train/y": -n}) for n in range(1, 8)
    ]
    assert [step for step, _ in journal_rows(logger.run_dir)] == list(range(1, 8))


def test_the_first_value_that_is_not_finite_is_named_and_only_the_first(tmp_path):
    backend = Memory()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
            logger.log({"a": 1.0, "b": float("nan")}, 7)
            logger.log({"a": float("inf"), "b": float("nan")}, 8)
    assert len(shown) == 1
    assert "'b' is nan at step 7" in str(shown[0].message)
    assert np.isnan(backend.rows[0][1]["b"])
    assert backend.rows[1][1]["a"] == np.inf


def test_a_value_that_is_not_finite_is_named_from_the_devices_too(tmp_path):
    with pytest.warns(ld.LoggingWarning, match="'train/bad' is inf at step 3") as shown:
        with open_logger(tmp_path) as logger:
            arrive(logger, 3, 4, bad=jnp.inf)
    assert len(shown) == 1
