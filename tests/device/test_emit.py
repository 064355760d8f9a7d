"""`emit`: a row from inside compiled code, wherever it is compiled."""

import contextlib
import warnings

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.experimental import io_callback
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import iteration, mesh_of, reset, step_states
from tests.memory import Memory
from tests.program import callbacks, collective_operands, compiled_text
from tests.readers import (
    event_rows,
    journal_row_records,
    journal_rows,
    journal_steps,
)

STEPS, DEVICES = 5, 4
DATA = np.random.default_rng(0).normal(size=(STEPS, DEVICES, 3)).astype(np.float32)


@pytest.fixture
def logger(tmp_path):
    with ld.Logger([ld.TensorBoardBackend(tmp_path)], "r", log_dir=tmp_path) as logger:
        yield logger
    assert logger.failures == ()


def expected(data, scale=10):
    """Of data of shape (steps, ...): the rows of `send` by NumPy."""
    rows = []
    for i, values in enumerate(data):
        rows.append((i * scale, {
            "loss/mean": values.mean(), "sum": values.sum(), "worst": values.max(),
            "best": values.min(), "plain": values.mean(), "count": float(values.size),
        }))  # fmt: skip
    return rows


def send(logger, values, step, **options):
    metrics = {
        "loss": {"mean": ld.Mean.of(values)},
        "sum": ld.Sum(values.sum()),
        "worst": ld.Max(values.max()),
        "best": ld.Min(values.min()),
        "plain": values.mean(),
        "count": ld.Sum(values.size + 0 * values.sum()),
    }
    logger.emit(metrics, step, **options)


def scan(logger, data):
    def body(step, values):
        send(logger, values, step)
        return step + 10, None

    return lax.scan(body, jnp.zeros((), jnp.int32), data)[0]


def compiled(logger, how):
    """A program that logs the rows of `DATA`, and its argument."""
    if how == "jit":
        sharded = jax.device_put(DATA, NamedSharding(mesh_of(DEVICES), P(None, "a")))
        return lambda data: scan(logger, data), sharded
    checked = {"check_vma": how == "shard_map"}
    specs = {"in_specs": P(None, "a"), "out_specs": P()}
    return jax.shard_map(
        lambda data: scan(logger, data), mesh=mesh_of(DEVICES), **specs, **checked
    ), DATA


def check(logger, rows):
    logger.close()
    for found in (journal_rows(logger.run_dir), event_rows(logger.run_dir)):
        assert [step for step, _ in found] == [step for step, _ in rows]
        for (step, got), (_, want) in zip(found, rows, strict=True):
            assert got.keys() == want.keys()
            for name, value in want.items():
                np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=f"{name}, {step}")


@pytest.mark.parametrize("how", ["jit", "shard_map", "shard_map, unchecked"])
def test_rows_equal_numpy_with_one_collective_and_one_callback(logger, how):
    program, data = compiled(logger, how)
    text = compiled_text(program, data)
    assert callbacks(text) == 1
    if how != "jit":
        assert collective_operands(text) == {"all-reduce": 1}
    jax.block_until_ready(jax.jit(program)(data))
    check(logger, expected(DATA))


def test_rows_of_pmap_equal_numpy(logger):
    jax.pmap(lambda data: scan(logger, data), axis_name="i")(np.moveaxis(DATA, 1, 0))
    check(logger, expected(DATA))


def test_an_axis_that_is_named_is_reduced_over_alone(logger):
    mesh = mesh_of(2, 2)

    def step(values):
        send(logger, values, 7, axis_name="a")

    mapped = jax.shard_map(step, mesh=mesh, in_specs=P("a"), out_specs=P(), check_vma=False)
    jax.jit(mapped)(DATA[0, :2])
    check(logger, [(7, expected(DATA[:1, :2])[0][1])])


def test_rows_are_no_iterations_and_disturb_none_beside_them(tmp_path):
    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path, log_interval=2) as logger:

        def body(count, _):
            logger.emit({"outer": count * 1.0}, (count, 100))
            iteration(logger, step_states(count[None]), {"x": count}, count)
            # The steps of an inner loop begin at 0 each time.
            lax.fori_loop(0, 3, lambda i, c: (logger.emit({"inner": c}, i), c)[1], count * 1.0)
            lax.cond(count == 3, lambda: logger.emit({"eval": {"score": 9.0}}, count), lambda: None)
            return count + 1, None

        jax.block_until_ready(jax.jit(lambda: lax.scan(body, jnp.asarray(1), length=6))())
    rows = [(row.step, row.iteration, row.metrics) for row in journal_row_records(logger.run_dir)]
    assert logger.failures == ()
    assert [m["outer"] for _, _, m in rows if "outer" in m] == [1, 2, 3, 4, 5, 6]
    assert [s for s, _, m in rows if "outer" in m] == [100, 200, 300, 400, 500, 600]
    assert [(s, i) for s, i, m in rows if "train/x" in m] == [(2, 2), (4, 4), (6, 6)]
    inner = [(m["inner"], s) for s, i, m in rows if "inner" in m]
    assert inner == [(count, s) for count in range(1, 7) for s in range(3)]
    assert [(s, m) for s, _, m in rows if "eval/score" in m] == [(3, {"eval/score": 9.0})]
    assert {i for _, i, m in rows if "train/x" not in m} == {None}
    assert all(set(m) == {"outer"} for _, _, m in rows if "outer" in m)


def test_rows_of_one_program_that_overtake_one_another_are_put_in_order(logger):
    @jax.jit
    def step(x):
        for i in range(20):
            logger.emit({"x": x + i}, 10 * i)

    step(0.0)
    jax.effects_barrier()
    step(100.0)
    check(logger, [(10 * i, {"x": y + i}) for y in (0, 100) for i in range(20)])


def test_a_step_that_comes_again_loses_nothing(logger):
    program = jax.jit(
        lambda x: lax.fori_loop(0, 50, lambda i, x: (send(logger, x, i // 5), x)[1], x)
    )
    for _ in range(3):
        program(jnp.ones(2))
    logger.close()
    assert sorted(journal_steps(logger.run_dir)) == sorted([i // 5 for i in range(50)] * 3)


def test_a_row_larger_than_a_payload_arrives_whole_though_its_step_comes_again(tmp_path):
    class Histogram(ld.AbstractPartial):
        counts: jax.Array

        def sums(self, maxima, first):
            return (self.counts,)

        @staticmethod
        def finish(sums, maxima, numpy):
            return ld.Finished({"": sums[0]}, 1)

    size = 40_000
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        jax.jit(
            lambda: lax.fori_loop(
                0, 6, lambda i, c: (logger.emit({"h": Histogram(c + i)}, 0), c)[1], jnp.zeros(size)
            )
        )()
    rows = journal_row_records(logger.run_dir)
    assert [row.step for row in rows] == [0] * 6
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row.vectors["h"], np.full(size, i))


def test_steps_are_exact_beyond_32_bits(logger):
    @jax.jit
    def step(count):
        logger.emit({"pair": 1.0}, (count, 2**20 + 1))
        logger.emit({"known": 1.0}, 2**50 + 1)
        logger.emit({"unsigned": 1.0}, jnp.uint32(2**32 - 1))

    step(jnp.int32(2**31 - 1))
    with jax.enable_x64(True):
        jax.jit(lambda s: logger.emit({"wide": 1.0}, s))(jnp.asarray(2**55 + 1))
    logger.close()
    found = {name: step for step, row in journal_rows(logger.run_dir) for name in row}
    assert found == {
        "pair": (2**31 - 1) * (2**20 + 1), "known": 2**50 + 1, "unsigned": 2**32 - 1,
        "wide": 2**55 + 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (1.5, "TypeError: `step` must be an integer.*got 1.5"),
        (True, "TypeError: `step` must be an integer"),
        (jnp.ones(2, int), r"ValueError: `step` must be a scalar, got shape \(2,\)"),
        (-1, "ValueError: `step` must be 0 or more"),
        (2**56, "ValueError: `step` must be 0 or more and below"),
        ((1, jnp.asarray(2)), "TypeError: `step` must be an integer, or a pair"),
    ],
)
def test_a_step_that_is_none_is_refused_while_tracing(logger, step, error):
    kind, _, match = error.partition(": ")
    with pytest.raises({"TypeError": TypeError, "ValueError": ValueError}[kind], match=match):
        jax.eval_shape(lambda: logger.emit({"x": 1.0}, step))


def test_outside_of_compiled_code_it_logs_at_once(logger):
    for step in range(2):
        send(logger, jnp.asarray(DATA[step]), 10 * step)
    with jax.disable_jit():
        jax.jit(lambda data, step: send(logger, data, 10 * step))(jnp.asarray(DATA[2]), 2)
    check(logger, expected(DATA[:3]))


def looped(step):
    """`step`, called for each of a few counts in a loop that is differentiated."""
    return lambda x: lax.scan(lambda y, i: (step(y, i), None), x, jnp.arange(1, 4))[0]


@pytest.mark.parametrize("how", ["jit", "shard_map", "split by XLA"])
@pytest.mark.parametrize("inner", [jax.checkpoint, lambda f: f])
def test_under_grad_and_checkpoint_each_row_comes_once(tmp_path, how, inner):
    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path) as logger:

        @inner
        def step(y, i):
            y = jnp.sin(y)
            logger.emit({"y": ld.Max(y), "z": y}, i)
            iteration(logger, None, {"y": y, "worst": ld.Max(y)}, i)
            return y * jnp.sin(y)

        loss = looped(step)
        if how == "shard_map":
            mapped = jax.shard_map(
                lambda x: jax.grad(loss)(x[0])[None], mesh=mesh_of(2), in_specs=P("a"),
                out_specs=P("a"),
            )  # fmt: skip
            jax.jit(mapped)(jnp.ones(2))
        elif how == "jit":
            with jax.default_device(jax.devices()[0]):
                jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(1.0)
        else:
            x = jax.device_put(jnp.ones(4), NamedSharding(mesh_of(4), P("a")))
            jax.jit(jax.grad(lambda x: loss(x.mean())))(x)
    assert logger.failures == ()
    y, want = 1.0, []
    for _ in range(3):
        y = np.sin(y)
        want.append(y)
        y = y * np.sin(y)
    for name in ("y", "train/worst"):
        found = [(step, row[name]) for step, row in journal_rows(logger.run_dir) if name in row]
        assert [step for step, _ in found] == [1, 2, 3]
        np.testing.assert_allclose([value for _, value in found], want, rtol=1e-5)


@pytest.mark.parametrize("inner", [jax.checkpoint, lambda f: f])
@pytest.mark.parametrize("together", [1, 2])
def test_in_branches_and_buffers_of_what_is_differentiated_as_well(tmp_path, inner, together):
    options = {"log_interval": 2, "rows_per_transfer": together}
    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path, **options) as logger:

        @inner
        def step(carry, i):
            y, state = carry
            y = jnp.sin(y)
            lax.cond(i % 2 == 0, lambda y: logger.emit({"y": y}, i), lambda y: None, y)
            return y * y, iteration(logger, None, {"y": y}, i, state=state)

        def loss(x):
            carry = (x, reset(logger))
            (y, state), _ = lax.scan(lambda c, i: (step(c, i), None), carry, jnp.arange(1, 9))
            logger.flush_state(state)
            return y

        jax.jit(jax.grad(loss))(1.0)
    for name in ("y", "train/y"):
        found = [step for step, row in journal_rows(logger.run_dir) if name in row]
        assert found == [2, 4, 6, 8]
    assert logger.failures == ()


def test_without_jaxs_hook_a_checkpoint_is_allowed_as_well(logger, monkeypatch):
    import jax._src.effects

    monkeypatch.delattr(jax._src.effects, "remat_allowed_effects")
    text = compiled_text(lambda x: logger.emit({"x": x}, 1), 1.0)
    assert "buffer" not in text and callbacks(text) == 1


def test_without_step_states_the_step_is_the_iteration(tmp_path):
    with ld.LoggingCallback(Memory(), "r", log_dir=tmp_path) as logger:
        mapped = jax.shard_map(
            lambda x: lax.fori_loop(
                1, 4, lambda i, x: (iteration(logger, None, {"x": x[0]}, i), x)[1], x
            ),
            mesh=mesh_of(4), in_specs=P("a"), out_specs=P("a"),
        )  # fmt: skip
        jax.block_until_ready(jax.jit(mapped)(jnp.arange(4.0)))
    rows = journal_rows(logger.run_dir)
    assert [(step, row["train/x"]) for step, row in rows] == [(1, 1.5), (2, 1.5), (3, 1.5)]
    assert not any(name.startswith("episode/") for _, row in rows for name in row)


@pytest.mark.parametrize("call", ["debug", "io", "io, ordered"])
def test_log_may_be_called_from_a_host_callback(logger, call):
    def report(loss, step):
        logger.log({"train": {"loss": loss}}, step)

    def body(x, step):
        if call == "debug":
            jax.debug.callback(report, x * 2, step)
        else:
            io_callback(report, None, x * 2, step, ordered="ordered" in call)
        return x + 1, None

    def train(x):
        return lax.scan(body, x, jnp.arange(20))[0]

    jax.jit(train)(0.0)
    # With rows that are still under way.
    logger.close()
    assert sorted(journal_rows(logger.run_dir)) == [(i, {"train/loss": 2.0 * i}) for i in range(20)]


@pytest.mark.parametrize("devices", [1, 2])
def test_a_callback_that_comes_after_close_ends_no_program(tmp_path, devices):
    """On one device in the thread of the program, as JAX runs it there; on two in another."""
    logger = ld.Logger(Memory(), "r", log_dir=tmp_path)

    def report(x):
        logger.log({"x": x}, 3)
        logger.log_hparams({"late": 1})

    def step(x):
        jax.debug.callback(report, x)
        return x * 2

    if devices > 1:
        step = jax.shard_map(step, mesh=mesh_of(2), in_specs=P(), out_specs=P(), check_vma=False)
    logger.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert jax.block_until_ready(jax.jit(step)(2.0)) == 4.0
        jax.effects_barrier()
    (first, second) = logger.failures
    assert "`log` was called after `close()`" in first.message
    assert "`log_hparams` was called after" in second.message
    with pytest.raises(RuntimeError, match="`log` was called after"):
        logger.log({"x": 1.0}, 4)


def test_a_row_that_is_emitted_after_close_is_reported(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        step = jax.jit(lambda x: logger.emit({"x": x}, 1))
    with contextlib.suppress(ld.LoggingWarning):
        step(1.0)
        jax.effects_barrier()
    assert "after `close()`" in logger.failures[0].message
