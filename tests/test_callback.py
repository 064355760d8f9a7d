"""`LoggingCallback` in one process: naming, hyperparameters, what a step compiles to, bad input."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import KEY, iteration, mesh_of, step_states, training
from tests.memory import Memory, Raises
from tests.program import callbacks, collective_operands, compiled_text
from tests.readers import event_rows, journal_records, journal_rows


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def logger(memory, tmp_path):
    with ld.LoggingCallback(memory, log_dir=tmp_path) as logger:
        yield logger


def test_the_signature_of_the_page_holds():
    import inspect

    parameters = inspect.signature(ld.LoggingCallback.__init__).parameters
    positional = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
    }
    assert positional == {
        "backend": inspect.Parameter.empty,
        "name": None,
        "env": None,
        "policy": None,
        "alpha": 0.9,
        "hparams": None,
        "video_interval": 0,
        "video_num_steps": 128,
        "video_width": 640,
        "video_height": 480,
        "video_fps": 50.0,
    }
    rest = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert all(parameter.default is not parameter.empty for parameter in rest)


class Policy(eqx.Module):
    width: int = 64
    depth: int = 2
    name: str = eqx.field(static=True, default="MLP")


class Algorithm(eqx.Module):
    gamma: float = 0.99
    num_steps: int = 128

    def num_iterations(self, total_timesteps):
        return total_timesteps // 1000


def test_hyperparameters_come_from_policy_and_algorithm_and_explicit_ones_win(tmp_path, memory):
    logger = ld.LoggingCallback(
        memory, "run", log_dir=tmp_path, hparams={"policy.width": 3, "seed": 7}
    )
    context = training(ld.EmptyCallbackState(), 10_000, policy=Policy(), algorithm=Algorithm())
    jax.jit(lambda: logger.on_training_start(context, key=KEY))()
    logger.close()
    assert memory.calls == [
        ("open", "run"),
        ("hparams", {"policy.width": 3, "seed": 7}),
        (
            "hparams",
            {
                "policy.width": 3,
                "policy.depth": 2,
                "policy.name": "MLP",
                "algorithm.gamma": 0.99,
                "algorithm.num_steps": 128,
                "seed": 7,
            },
        ),
        ("start", 10_000, 10),
        ("close",),
    ]


def test_hyperparameters_that_are_known_already_are_not_told_again(tmp_path, memory):
    logger = ld.LoggingCallback(memory, "run", log_dir=tmp_path, hparams={"seed": 7})
    context = training(ld.EmptyCallbackState(), 10)
    jax.jit(lambda: logger.on_training_start(context, key=KEY))()
    logger.close()
    assert [call for call in memory.calls if call[0] == "hparams"] == [("hparams", {"seed": 7})]


def test_a_total_that_the_step_computes_is_known_too(logger, memory):
    def start(total):
        context = training(ld.EmptyCallbackState(), total)
        return logger.on_training_start(context, key=KEY)

    jax.jit(start)(jnp.asarray(5000))
    logger.close()
    assert ("start", 5000, 0) in memory.calls


def test_a_name_is_made_of_policy_and_environment(tmp_path, memory):
    with ld.LoggingCallback(memory, env=Policy(name="Env"), policy=Policy(), log_dir=tmp_path) as a:
        assert a.name.startswith("MLP_Env_20")
        # A second logger within the same second has a folder of its own.
        with ld.LoggingCallback(
            Memory(), env=Policy(name="Env"), policy=Policy(), log_dir=tmp_path
        ) as b:
            assert a.run_dir != b.run_dir
    assert a.run_dir == tmp_path.resolve() / a.name


def test_the_folder_of_the_first_backend_that_has_one_is_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ld.LoggingCallback([Memory(), ld.JSONLBackend(tmp_path / "runs")], "r") as logger:
        assert logger.run_dir == tmp_path.resolve() / "runs" / "r"
    with ld.LoggingCallback(Memory(), "r") as logger:
        assert logger.run_dir == tmp_path.resolve() / "logs" / "r"


def test_the_learning_rate_is_found_in_the_state_of_the_optimizer(logger, memory):
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-3, 0.0, 10)),
    )
    opt_state = optimizer.init(jnp.ones(3))
    jax.jit(lambda s: iteration(logger, step_states([1]), {}, opt_state=s))(opt_state)
    logger.flush()
    np.testing.assert_allclose(memory.rows[0][1]["train/learning_rate"], 1e-3, rtol=1e-6)


def test_without_a_learning_rate_there_is_none_and_the_log_wins_over_the_state(logger, memory):
    jax.jit(lambda: iteration(logger, step_states([1]), {}, opt_state=optax.sgd(0.1).init(0.0)))()
    state = {"learning_rate": jnp.float32(5)}
    log = {"learning_rate": jnp.float32(7)}
    jax.jit(lambda: iteration(logger, step_states([1]), log, 2, opt_state=state))()
    logger.flush()
    assert "train/learning_rate" not in memory.rows[0][1]
    assert memory.rows[1][1]["train/learning_rate"] == 7


def test_several_learning_rates_are_told_apart(logger, memory):
    state = {
        "actor": {"learning_rate": jnp.float32(1)},
        "critic": {"learning_rate": jnp.float32(2)},
    }
    jax.jit(lambda: iteration(logger, step_states([1]), {}, opt_state=state))()
    logger.flush()
    row = memory.rows[0][1]
    assert row["train/learning_rate/actor"] == 1 and row["train/learning_rate/critic"] == 2


@pytest.mark.parametrize("devices", [1, 8])
def test_a_step_with_any_number_of_metrics_has_the_same_collectives_and_one_callback(
    devices, tmp_path
):
    def compiled(n):
        with ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path) as logger:

            def step(steps, values):
                log = {f"m{place}": values[0] * place for place in range(n)}
                iteration(logger, step_states(steps), log)
                return steps + 1

            mapped = jax.shard_map(step, mesh=mesh_of(devices), in_specs=P("a"), out_specs=P("a"))
            return compiled_text(mapped, jnp.zeros(8, int), jnp.ones(8))

    few, many = compiled(5), compiled(64)
    # One for all; alone there is none.
    assert collective_operands(few) == collective_operands(many)
    if devices > 1:
        assert collective_operands(few) == {"all-reduce": 1}
    assert callbacks(few) == callbacks(many) == 1


def test_under_plain_jit_the_collectives_are_few_and_do_not_grow(tmp_path):
    def compiled(n):
        with ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path) as logger:
            sharding = NamedSharding(mesh_of(4), P("a"))

            def step(steps, values):
                loss = values.mean()
                log = {f"m{place}": loss * place for place in range(n)}
                iteration(logger, step_states(steps, values), log)

            arguments = jax.device_put((jnp.zeros(8, int), jnp.ones(8)), sharding)
            return compiled_text(step, *arguments)

    few, many = compiled(5), compiled(64)
    assert collective_operands(few) == collective_operands(many)
    # The step's own mean, and one of ours: steps, sums and extremes of groups of environments.
    assert collective_operands(few) == {"all-reduce": 2}
    assert callbacks(few) == callbacks(many) == 1


def test_total_steps_are_exact_at_a_billion(logger, memory):
    """1024 environments over 8 devices."""
    steps = np.full(1024, 10**9, np.int32) + np.arange(1024, dtype=np.int32)
    mapped = jax.shard_map(
        lambda s: iteration(logger, step_states(s), {}) and s,
        mesh=mesh_of(8),
        in_specs=P("a"),
        out_specs=P("a"),
    )
    jax.block_until_ready(jax.jit(mapped)(steps))
    logger.flush()
    # One row, though eight devices ran the step.
    assert [step for step, _ in memory.rows] == [1024 * 10**9 + 1024 * 1023 // 2]


@pytest.mark.parametrize("check_vma", [True, False])
def test_only_some_axes_may_be_manual(logger, memory, check_vma):
    devices = np.array(jax.devices()[:4]).reshape(2, 2)
    mesh = jax.sharding.Mesh(devices, ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def step(states_returns, values):
        log = {"mean": values.mean(), "sum": ld.Sum(values.sum())}
        iteration(logger, step_states(jnp.ones_like(states_returns), states_returns), log)

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=P("a"), out_specs=P(), axis_names={"a"}, check_vma=check_vma
    )
    values = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P(("a", "b"))))
    jax.jit(mapped)(values, values)
    logger.flush()
    ((step_count, row),) = memory.rows
    assert (step_count, row["train/mean"], row["train/sum"]) == (8, 3.5, 28.0)
    assert row["episode/return"] == 3.5


def test_a_mesh_with_explicit_axes_works(logger, memory):
    mesh = mesh_of(4, kind=AxisType.Explicit)
    with jax.set_mesh(mesh):
        returns = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("a")))
        jax.jit(lambda r: iteration(logger, step_states(r >= 0, r), {"m": r.mean()}))(returns)
    logger.flush()
    ((step_count, row),) = memory.rows
    assert (step_count, row["train/m"], row["episode/return"]) == (8, 3.5, 3.5)


def test_a_logger_is_a_pytree_that_causes_no_retrace(logger):
    traces = []

    @eqx.filter_jit
    def step(logger, steps):
        traces.append(1)
        iteration(logger, step_states(steps), {})
        return steps + 1

    steps = jnp.zeros(3, int)
    for _ in range(3):
        steps = step(logger, steps)
    assert len(traces) == 1
    assert jax.tree.leaves(logger) == [0.9]


def test_two_loggers_in_one_process_do_not_see_each_other(tmp_path):
    first, second = Memory(), Memory()
    with (
        ld.LoggingCallback(first, "a", log_dir=tmp_path) as a,
        ld.LoggingCallback(second, "b", log_dir=tmp_path) as b,
    ):

        def step(logger, value):
            iteration(logger, step_states([1]), {"x": value})

        jitted = eqx.filter_jit(step)
        jitted(a, jnp.float32(1))
        jitted(b, jnp.float32(2))
    assert [row["train/x"] for _, row in first.rows] == [1]
    assert [row["train/x"] for _, row in second.rows] == [2]


def test_a_second_training_is_logged_to_the_same_run(logger, memory):
    def train(start):
        context = training(ld.EmptyCallbackState(), 3)
        logger.on_training_start(context, key=KEY)

        def body(count, _):
            iteration(logger, step_states(count[None]), {"x": start + count}, count)
            return count + 1, None

        return jax.lax.scan(body, jnp.asarray(1), length=3)

    for start in (10, 20):
        jax.block_until_ready(jax.jit(train)(start))
    logger.flush()
    assert [row["train/x"] for _, row in memory.rows] == [11, 12, 13, 21, 22, 23]


def test_close_twice_is_fine_and_rows_after_it_are_not_lost_in_silence(tmp_path, memory):
    logger = ld.LoggingCallback(memory, "r", log_dir=tmp_path)
    logger.close()
    logger.close()
    assert memory.calls == [("open", "r"), ("close",)]
    with pytest.warns(ld.LoggingWarning, match="after `close\\(\\)`"):
        jax.block_until_ready(jax.jit(lambda: iteration(logger, step_states([1]), {}))())
        jax.effects_barrier()
    assert any("after `close()`" in failure.message for failure in logger.failures)


def test_an_exception_in_the_with_block_passes_and_the_run_has_failed(tmp_path, memory):
    with pytest.raises(KeyError), ld.LoggingCallback(memory, "r", log_dir=tmp_path):
        raise KeyError("x")
    assert journal_records(tmp_path / "r")[-1].body["state"] == "failed"


def test_failures_are_raised_by_close_only_where_asked(tmp_path):
    logger = ld.LoggingCallback(Raises("log_scalars", ValueError("quota")), "a", log_dir=tmp_path)
    with pytest.warns(ld.LoggingWarning) as shown:
        jax.jit(lambda: iteration(logger, step_states([1]), {}))()
        logger.close()
    assert ["quota" in str(entry.message) for entry in shown] == [True, False]
    logger = ld.LoggingCallback(Raises("log_scalars", ValueError("quota")), "b", log_dir=tmp_path)
    with pytest.warns(ld.LoggingWarning), pytest.raises(ExceptionGroup) as raised:
        jax.jit(lambda: iteration(logger, step_states([1]), {}))()
        logger.close(raise_failures=True)
    assert "quota" in str(raised.value.exceptions[0])
    assert isinstance(raised.value.exceptions[0].__cause__, ValueError)


PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import sys
import jax, jax.numpy as jnp
import lerax_dist as ld
from jax.sharding import PartitionSpec as P
from tests.loop import iteration, mesh_of, step_states
logger = ld.LoggingCallback(ld.TensorBoardBackend(sys.argv[1]), "r")
def train(matrix):
    def body(carry, _):
        count, matrix = carry
        iteration(logger, step_states(count[None]), {"x": count * 2.0}, count)
        return (count + 1, jnp.tanh(matrix @ matrix)), None
    return jax.lax.scan(body, (jnp.asarray(1), matrix[0]), length=500)[0][1][None]
# Two devices: with one, a program with a callback is not dispatched asynchronously.
step = jax.shard_map(train, mesh=mesh_of(2), in_specs=P("a"), out_specs=P("a"))
out = jax.jit(step)(jnp.ones((2, 200, 200)))
assert not out.is_ready()
"""


@pytest.mark.launch
def test_a_program_that_ends_while_its_step_still_runs_loses_nothing(tmp_path):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = journal_rows(tmp_path / "r")
    assert [step for step, _ in rows] == list(range(2, 1001, 2))
    assert [(step, row["train/x"]) for step, row in event_rows(tmp_path / "r")] == [
        (step, 1.0 * step) for step in range(2, 1001, 2)
    ]


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha, tmp_path):
    with pytest.raises(ValueError, match=r"`alpha` must be in \(0, 1\], got"):
        ld.LoggingCallback(Memory(), alpha=alpha, log_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_explicit_hyperparameters_are_logged_without_a_training_start(tmp_path, memory):
    with ld.LoggingCallback(memory, "r", log_dir=tmp_path, hparams={"seed": 7}):
        pass
    assert memory.calls == [("open", "r"), ("hparams", {"seed": 7}), ("close",)]


@pytest.mark.parametrize("total", [None, 5e3, np.int64(5000)])
def test_totals_and_algorithms_of_any_kind_start_a_training(logger, memory, total):
    class Odd:
        num_iterations = 5

    context = training(ld.EmptyCallbackState(), total, algorithm=Odd())
    logger.on_training_start(context, key=KEY)
    logger.flush()
    assert ("start", int(total or 0), 0) in memory.calls


def test_an_interval_may_be_any_integer(tmp_path):
    interval: Any = np.int64(5)
    ld.LoggingCallback(Memory(), log_interval=interval, log_dir=tmp_path).close()


@pytest.mark.parametrize("log_interval", [0, -1, 1.5, True, "1"])
def test_a_log_interval_below_1_is_refused(log_interval, tmp_path):
    with pytest.raises(ValueError, match="`log_interval` must be an integer of 1 or more"):
        ld.LoggingCallback(Memory(), log_interval=log_interval, log_dir=tmp_path)


def test_a_video_out_of_range_is_refused_and_nothing_is_made(tmp_path):
    with pytest.raises(ValueError, match="`video_interval` must be an integer of 0 or more"):
        ld.LoggingCallback(Memory(), video_interval=-5, log_dir=tmp_path)
    with pytest.raises(ValueError, match="`video_interval` must be a multiple of `log_interval` 2"):
        ld.LoggingCallback(Memory(), video_interval=5, log_interval=2, log_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/x", "", "a\nb"])
def test_a_name_that_leaves_the_folder_is_refused_and_nothing_is_made(name, tmp_path):
    with pytest.raises(ValueError, match="`name`"):
        ld.LoggingCallback(Memory(), name, log_dir=tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []


def test_no_backend_and_what_is_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`backend` must contain at least one"):
        ld.LoggingCallback([], log_dir=tmp_path)
    with pytest.raises(TypeError, match="`backend` must be a logging backend, got 'tensorboard'"):
        ld.LoggingCallback("tensorboard", log_dir=tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="got the class Memory. Call it"):
        ld.LoggingCallback(Memory, log_dir=tmp_path)  # pyright: ignore[reportArgumentType]
    one = Memory()
    with pytest.raises(ValueError, match="contains one backend twice"):
        ld.LoggingCallback([one, one], log_dir=tmp_path)


def test_a_run_that_is_open_already_is_refused(tmp_path):
    with (
        ld.LoggingCallback(Memory(), "r", log_dir=tmp_path),
        pytest.raises(RuntimeError, match="process 0 cannot open the run.*another logger"),
    ):
        ld.LoggingCallback(Memory(), "r", log_dir=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="process 0 cannot open the run in `log_dir` '.*file'"):
        ld.LoggingCallback(Memory(), "r", log_dir=tmp_path / "file")


@pytest.mark.parametrize(
    ("log", "error", "match"),
    [
        ({"a": jnp.ones(3)}, ValueError, r"'train/a' must be a scalar, got shape \(3,\)"),
        ({"a/b": 1.0, "a": {"b": 2.0}}, ValueError, "'train/a/b' twice"),
        ({1: 2.0}, TypeError, "has the name 1 of type int"),
        ({"a": "x"}, TypeError, "'train/a' is 'x' of type str"),
    ],
)
def test_a_bad_metric_is_named_while_tracing(logger, memory, log, error, match):
    with pytest.raises(error, match=match):
        jax.jit(lambda: iteration(logger, step_states([1]), log))()
    logger.flush()
    assert memory.rows == []


def test_an_axis_that_is_not_in_scope_is_named_while_tracing(tmp_path):
    with (
        ld.LoggingCallback(Memory(), axis_name="data", log_dir=tmp_path) as logger,
        pytest.raises(ValueError, match="`axis_name` names 'data', which is not in scope"),
    ):
        jax.jit(lambda: iteration(logger, step_states([1]), {}))()
