"""Rows that are sent together: the same rows as one by one, in a fraction of the transfers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import KEY, iteration, mesh_of, reset, step_states, training
from tests.memory import Memory
from tests.program import callbacks, collective_operands, compiled_text, payloads

RNG = np.random.default_rng(11)
ITERATIONS, ENVIRONMENTS = 23, 8
# What every environment has at every iteration; some have ended no episode for a while.
RETURNS = RNG.normal(100.0, 30.0, (ITERATIONS, ENVIRONMENTS)).astype(np.float32)
ENDED = (np.arange(ITERATIONS)[:, None] + np.arange(ENVIRONMENTS)) > 9
LOSSES = RNG.normal(0.0, 3.0, (ITERATIONS, ENVIRONMENTS)).astype(np.float32)


def train(logger, returns, ended, losses, *, ends=True):
    """All iterations in one scan; `ends` tells the logger of the end."""

    def iterate(carry, seen):
        state, count = carry
        average, done, loss = seen
        steps = jnp.full(average.shape, 10**8, jnp.int32) + count + 0 * done.astype(int)
        states = ld.LoggingCallbackStepState(
            steps, average, done.astype(int), done, average * done, done.astype(float)
        )
        log = {"loss": loss.mean(), "worst": ld.Max(loss.max()), "sum": ld.Sum(loss.sum())}
        return (iteration(logger, states, log, count + 1, state=state), count + 1), None

    start = reset(logger), jnp.zeros((), jnp.int32)
    (state, count), _ = jax.lax.scan(iterate, start, (returns, ended, losses))
    if ends:
        logger.on_training_end(training(state, 0, count=count), key=KEY)
    return count


def run(memory, log_dir, devices, data=(RETURNS, ENDED, LOSSES), **options):
    with ld.LoggingCallback(memory, log_dir=log_dir, **options) as logger:
        if devices == 0:
            jax.block_until_ready(jax.jit(lambda *d: train(logger, *d))(*data))
        else:
            mapped = jax.shard_map(
                lambda *d: train(logger, *d),
                mesh=mesh_of(devices),
                in_specs=P(None, "a"),
                out_specs=P(),
            )
            jax.block_until_ready(jax.jit(mapped)(*data))
    assert not logger.failures
    return [
        (
            step,
            {
                name: value
                for name, value in row.items()
                if not name.startswith(("time/", "lerax_dist/"))
            },
        )
        for step, row in memory.rows
    ]


def expected_rows(log_interval=1):
    rows = []
    for place in range(ITERATIONS):
        ended, losses = ENDED[place], LOSSES[place].astype(np.float64)
        returns = RETURNS[place].astype(np.float64)[ended]
        row = {
            "train/loss": losses.mean(),
            "train/worst": losses.max(),
            "train/sum": losses.sum(),
            "episode/count": ended.sum(),
        }
        if ended.any():
            row |= {
                "episode/return": returns.mean(),
                "episode/return_min": returns.min(),
                "episode/return_max": returns.max(),
                "episode/return_std": returns.std(),
                "episode/length": 1.0,
            }
        if (place + 1) % log_interval == 0:
            rows.append((ENVIRONMENTS * (10**8 + place), row))
    return rows


def check(rows, expected):
    assert [step for step, _ in rows] == [step for step, _ in expected]
    for (_, got), (_, want) in zip(rows, expected, strict=True):
        assert sorted(got) == sorted(want)
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=2e-6, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("devices", [0, 1, 4, 8])
@pytest.mark.parametrize("together", [2, 10, 23, 100])
def test_every_iteration_keeps_its_row_and_its_step(tmp_path, devices, together, order):
    rows = run(Memory(), tmp_path, devices, rows_per_transfer=together)
    check(rows, expected_rows())


def test_only_iterations_that_are_logged_wait(tmp_path, order):
    rows = run(Memory(), tmp_path, 4, rows_per_transfer=3, log_interval=2)
    check(rows, expected_rows(log_interval=2))
    rows = run(Memory(), tmp_path, 0, rows_per_transfer=3, log_interval=2)
    check(rows, expected_rows(log_interval=2))


def test_the_times_of_rows_that_came_together_are_spread_between_transfers(tmp_path):
    memory = Memory()
    run(memory, tmp_path, 4, rows_per_transfer=10)
    seconds = [row["time/iteration_seconds"] for _, row in memory.rows[10:20]]
    assert seconds[0] > 0
    np.testing.assert_allclose(seconds, seconds[0], rtol=1e-3)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_transfer_is_one_collective_and_one_callback(devices, tmp_path):
    """In the scan, and once more for what is buffered at its end, for any batch size."""
    with ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path, rows_per_transfer=10) as logger:
        mapped = jax.shard_map(
            lambda *d: train(logger, *d),
            mesh=mesh_of(devices),
            in_specs=P(None, "a"),
            out_specs=P(),
        )
        text = compiled_text(mapped, RETURNS, ENDED, LOSSES)
    assert callbacks(text) == 2
    if devices > 1:
        assert collective_operands(text) == {"all-reduce": 2}


def test_callbacks_come_once_in_so_many_rows(tmp_path, monkeypatch):
    found = payloads(monkeypatch)
    with ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=10) as logger:
        jax.block_until_ready(jax.jit(lambda *d: train(logger, *d))(RETURNS, ENDED, LOSSES))
    assert len(found) == 3


@pytest.mark.parametrize("devices", [0, 4])
def test_a_message_of_more_than_64_kib_leaves_in_payloads_below_it(tmp_path, monkeypatch, devices):
    """One payload of 100 KiB or more stops several devices for ever."""
    found = payloads(monkeypatch)
    memory, metrics, rows = Memory(), 200, 100

    def loop(values):
        def iterate(state, count):
            log = {f"m{place}": values.mean() + place * count for place in range(metrics)}
            log["sum"] = ld.Sum(values.sum() * count)
            return iteration(logger, step_states(count[None]), log, count, state=state), None

        jax.lax.scan(iterate, reset(logger), jnp.arange(1, rows + 1))

    with ld.LoggingCallback(memory, log_dir=tmp_path, rows_per_transfer=rows) as logger:
        if devices:
            loop = jax.shard_map(loop, mesh=mesh_of(devices), in_specs=P("a"), out_specs=None)
        jax.block_until_ready(jax.jit(loop)(jnp.arange(8.0)))
    sizes = [payload.nbytes for payload in found]
    assert sum(sizes) > 64 * 1024 >= max(sizes) and len(sizes) == 2
    assert len(memory.rows) == rows
    for count, (_, row) in enumerate(memory.rows, 1):
        got = [row[f"train/m{place}"] for place in range(metrics)]
        np.testing.assert_allclose(got, 3.5 + count * np.arange(metrics), rtol=1e-6)
        assert row["train/sum"] == 28 * count


def test_a_row_without_room_in_the_buffer_leaves_at_once(tmp_path, monkeypatch):
    # With the true size a step of that many metrics would take a minute to compile.
    monkeypatch.setattr("lerax_dist.device._sender._MIN_NUMBERS", 16)
    monkeypatch.setattr("lerax_dist.device._sender._NUMBERS_A_ROW", 1)
    memory, n = Memory(), 40
    with ld.LoggingCallback(memory, log_dir=tmp_path, rows_per_transfer=2) as logger:

        def step(state, values):
            log = {f"m{place}": values[place] for place in range(n)}
            return iteration(logger, step_states([1]), log, state=state)

        state = jax.jit(step)(reset(logger), jnp.arange(float(n)))
        logger.flush()
        assert [memory.rows[0][1][f"train/m{place}"] for place in range(n)] == list(range(n))
        assert int(state.count) == 0
    assert not logger.failures


def test_rows_wait_in_the_state_and_leave_when_it_is_flushed(tmp_path):
    memory = Memory()
    with ld.LoggingCallback(memory, log_dir=tmp_path, rows_per_transfer=10) as logger:

        @jax.jit
        def step(state, count):
            return iteration(
                logger, step_states([1]), {"n": count.astype(float)}, count, state=state
            )

        state = reset(logger)
        for count in range(1, 14):
            state = step(state, jnp.asarray(count))
        logger.flush()
        assert [row["train/n"] for _, row in memory.rows] == list(range(1, 11))
        state = logger.flush_state(state)
        state = logger.flush_state(state)
        logger.flush()
        assert [row["train/n"] for _, row in memory.rows] == list(range(1, 14))
        state = step(state, jnp.asarray(14))
        logger.flush_state(state)
        logger.flush()
        assert memory.rows[-1][1]["train/n"] == 14


def test_a_run_that_is_closed_while_rows_wait_says_so(tmp_path):
    with (
        pytest.warns(ld.LoggingWarning, match="up to 9 rows .* still buffered on the devices"),
        ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=10) as logger,
    ):
        jax.block_until_ready(
            jax.jit(lambda *d: train(logger, *d, ends=False))(RETURNS, ENDED, LOSSES)
        )


def test_a_state_that_reset_did_not_give_is_refused(tmp_path):
    with ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=10) as logger:
        with pytest.raises(ValueError, match="`state` must be what `reset` returned"):
            logger.flush_state(ld.EmptyCallbackState())


def test_a_state_from_outside_of_the_shard_map_is_refused(tmp_path):
    with ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=10) as logger:
        outside = reset(logger)

        def step(state, values):
            log = {"mean": values.mean()}
            state = iteration(logger, step_states([1]), log, state=state)
            return jax.tree.leaves(state)[0][None]

        mapped = jax.shard_map(step, mesh=mesh_of(2), in_specs=(P(), P("a")), out_specs=P("a"))
        with pytest.raises(ValueError, match="all inside the same `shard_map`"):
            jax.jit(mapped)(outside, jnp.ones(4))


def test_other_metrics_in_a_later_step_are_refused(tmp_path):
    with ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=10) as logger:

        def step(state, name):
            return iteration(logger, step_states([1]), {name: jnp.ones(())}, state=state)

        state = step(reset(logger), "a")
        with pytest.raises(ValueError, match="`training_log` must hold the same metrics"):
            step(state, "b")
        logger.flush_state(state)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_number_of_rows_that_is_none_is_refused(value, tmp_path):
    with pytest.raises(ValueError, match="`rows_per_transfer` must be an integer of 1 or more"):
        ld.LoggingCallback(Memory(), log_dir=tmp_path, rows_per_transfer=value)


def test_a_buffer_keeps_the_precision_that_reset_gave_it(tmp_path):
    memory = Memory()
    with ld.LoggingCallback(memory, log_dir=tmp_path, rows_per_transfer=2) as logger:
        state = reset(logger)
        for count in range(1, 6):
            # The first steps compute in float64, the last as the buffer does.
            with jax.enable_x64(count < 4):
                log = {"loss": 0.5 * jnp.int32(count)}
                state = iteration(logger, step_states([5]), log, jnp.int32(count), state=state)
        logger.flush_state(state)
    assert logger.failures == ()
    assert [row["train/loss"] for _, row in memory.rows] == [0.5, 1.0, 1.5, 2.0, 2.5]
