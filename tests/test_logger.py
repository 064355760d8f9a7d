"""`Logger` in one process: values it takes, how long it holds up the loop, bad input."""

import dataclasses
import enum
import functools
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import equinox as eqx
import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.core import FrozenDict
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import mesh_of
from tests.memory import Memory
from tests.readers import event_rows, journal_records, journal_rows


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def logger(memory, tmp_path):
    with ld.Logger(memory, "r", log_dir=tmp_path) as logger:
        yield logger


def test_numbers_of_every_kind_are_logged(logger, memory):
    mesh = mesh_of(8)
    values = {
        "float": 1.5,
        "int": 2**40 + 1,
        "bool": True,
        "np32": np.float32(0.1),
        "np0d": np.array(2.5),
        "bf16": np.array(1.5, ml_dtypes.bfloat16)[()],
        "jax": jnp.float32(0.1),
        "jaxint": jnp.int32(7),
        "jaxbf16": jnp.bfloat16(2.5),
        "replicated": jax.device_put(jnp.float32(4), NamedSharding(mesh, P())),
    }
    logger.log(values, 3)
    logger.flush()
    ((step, row),) = memory.rows
    assert step == 3
    assert row == {name: float(value) for name, value in values.items()}


def test_nested_names_are_joined_and_rows_keep_their_order(logger, memory):
    for step in range(200):
        logger.log({"train": {"loss": float(step)}, "lr": 0.1}, step)
    logger.flush()
    assert memory.rows == [(s, {"train/loss": float(s), "lr": 0.1}) for s in range(200)]


def test_what_changes_after_the_call_does_not_change_the_row(logger, memory):
    value = np.zeros(())
    logger.log({"a": value}, 0)
    value += 5
    logger.flush()
    assert memory.rows[0][1]["a"] == 0.0


def test_log_does_not_wait_for_the_device(logger, memory):
    """The value is not there before the callback may return, and `log` returns before that."""
    gate = threading.Event()

    def wait(x):
        assert gate.wait(60)
        return np.asarray(x)

    value = jax.jit(lambda x: jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.float32), x))
    # Two devices, for with one per process a program with a callback is dispatched synchronously.
    mesh = mesh_of(2)
    mapped = jax.jit(
        jax.shard_map(
            lambda x: value(x[0])[None],
            mesh=mesh,
            in_specs=P("a"),
            out_specs=P("a"),
            check_vma=False,
        )
    )
    result = mapped(jnp.ones(2))
    total = result.addressable_shards[0].data
    try:
        ready = total.is_ready()
        logger.log({"a": jax.numpy.asarray(total).reshape(())}, 0)
        returned_early = not gate.is_set()
    finally:
        gate.set()
    logger.flush()
    assert returned_early and not ready
    assert memory.rows[0][1]["a"] == 1.0


def test_hyperparameters_and_total_steps_reach_the_backends(tmp_path, memory):
    with ld.Logger(memory, "r", log_dir=tmp_path, total_steps=9, hparams={"a": {"b": 1}}) as logger:
        logger.log_hparams({"later": 2})
    assert memory.calls == [
        ("open", "r"),
        ("hparams", {"a.b": 1}),
        ("start", 9, 0),
        ("hparams", {"a.b": 1, "later": 2}),
        ("close",),
    ]


def test_rows_come_back_from_the_files_that_users_open(tmp_path):
    backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path)]
    with ld.Logger(backends, "r") as logger:
        for step in range(50):
            logger.log({"x": step / 7, "y": jnp.float32(step)}, step * 10**9)
    expected = [(step * 10**9, step / 7, float(step)) for step in range(50)]
    assert [(s, r["x"], r["y"]) for s, r in journal_rows(tmp_path / "r")] == expected
    got = [(s, r["x"], r["y"]) for s, r in event_rows(tmp_path / "r")]
    assert got == [(s, float(np.float32(x)), y) for s, x, y in expected]


class Color(enum.Enum):
    RED = 1


class Opaque:
    def __array__(self):
        raise RuntimeError("not now")


BAD = [
    ({"a": 10**400}, ValueError, "metric 'a' is an integer of 1329 bits"),
    ({"a": -(10**5000)}, ValueError, "more than a float holds. Log its logarithm"),
    ({"a": jnp.ones(3)}, ValueError, r"metric 'a' must be a scalar, got shape \(3,\)"),
    ({"a": np.ones((2, 2))}, ValueError, r"metric 'a' must be a scalar, got shape \(2, 2\)"),
    ({"a": np.zeros(0)}, ValueError, r"metric 'a' must be a scalar, got shape \(0,\)"),
    ({"a": {"b": "x"}}, TypeError, "metric 'a/b' is 'x' of type str"),
    ({"a": "1.5"}, TypeError, "metric 'a' is '1.5' of type str"),
    ({"a": b"1.5"}, TypeError, "metric 'a' is b'1.5' of type bytes"),
    ({"a": np.str_("1.5")}, TypeError, "metric 'a' is .* of type str_"),
    ({"a": 1j}, TypeError, "metric 'a' is 1j of type complex"),
    ({"a": np.complex64(1)}, TypeError, "metric 'a' is .* of type complex64"),
    ({"a": jnp.complex64(1)}, TypeError, "metric 'a' has dtype complex64"),
    ({"a": np.datetime64(3, "s")}, TypeError, "metric 'a' is .* of type datetime64"),
    ({"a": jax.random.key(0)}, TypeError, "metric 'a' has dtype key"),
    ({"a": Color.RED}, TypeError, "metric 'a' is <Color.RED: 1> of type Color"),
    ({"a": Opaque()}, TypeError, "metric 'a' is .* of type Opaque"),
    ({"a": {1, 2}}, TypeError, "metric 'a' is {1, 2} of type set"),
    ({"a": np}, TypeError, "metric 'a' is .* of type module"),
    ({"good": {"x": 7.0}, "good/x": 1.0}, ValueError, "'good/x' twice"),
    ({"good": {"x": 7.0}, "good/x": jnp.float32(1)}, ValueError, "'good/x' twice"),
    ({"a": {"": 1}}, ValueError, "under an empty name"),
    ({"": {"b": 1}}, ValueError, "under an empty name"),
]


@pytest.mark.parametrize(("metrics", "error", "match"), BAD)
def test_a_value_that_cannot_be_logged_is_named_once_and_costs_no_other(
    tmp_path, metrics, error, match
):
    good = {"good/x": 7.0, "good/y": 8.0}
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        with pytest.warns(ld.LoggingWarning, match=match) as caught:
            for step in range(3):
                logger.log({**metrics, "good": {"x": 7.0, "y": jnp.float32(8)}}, step)
        logger.log({"good": {"x": 7.0, "y": 8}, "a": 1.0}, 3)
    assert len(caught) == 1 and "strict=True" in str(caught[0].message)
    rows = journal_rows(tmp_path / "r")
    assert rows == [*((step, good) for step in range(3)), (3, {**good, "a": 1.0})]
    with ld.Logger(Memory(), "s", log_dir=tmp_path, strict=True) as logger:
        for step in range(2):
            with pytest.raises(error, match=match):
                logger.log({**metrics, "more": 1.0}, step)
        logger.log({"more": 1.0}, 1)
    assert journal_rows(tmp_path / "s") == [(1, {"more": 1.0})]


@pytest.mark.parametrize("metrics", [3.0, "x", jnp.float32(1)])
def test_a_value_without_a_name_is_told(tmp_path, metrics):
    with ld.Logger(Memory(), "r", log_dir=tmp_path, strict=True) as logger:
        with pytest.raises(ValueError, match="`metrics` must hold names and values"):
            logger.log(metrics, 0)


def test_many_names_that_cannot_be_logged_are_not_all_warned_of(tmp_path):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        with pytest.warns(ld.LoggingWarning) as caught:
            logger.log({"weights": {f"w{i}": jnp.ones(3) for i in range(300)}, "loss": 1.0}, 0)
    assert len(caught) == 21 == len(logger.failures)
    assert journal_rows(tmp_path / "r") == [(0, {"loss": 1.0})]


@dataclasses.dataclass
class Plain:
    loss: Any
    pair: Any


class Named(NamedTuple):
    loss: Any
    pair: Any


class Module(eqx.Module):
    loss: Any
    pair: Any
    name: str = eqx.field(static=True, default="no value")


@flax.struct.dataclass
class Struct:
    loss: Any
    pair: Any
    name: str = flax.struct.field(pytree_node=False, default="no value")


CONTAINERS = (Plain, Named, Module, Struct, lambda loss, pair: FrozenDict(loss=loss, pair=pair))


@pytest.mark.parametrize("kind", CONTAINERS)
def test_any_pytree_of_scalars_is_logged_under_joined_names(tmp_path, kind):
    def row(x):
        return kind(jnp.float32(x), [x + 1, (None, {7: np.float32(x + 2), 8: None})])

    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        for step in range(3):
            logger.log(row(step), step)
            logger.log({"train": row(step), 5: [1.0]}, 10 + step)
            logger.log([row(step)], 20 + step)
    assert logger.failures == ()
    flat = [{"loss": s, "pair/0": s + 1, "pair/1/1/7": s + 2} for s in (0.0, 1.0, 2.0)]
    expected = []
    for step, values in enumerate(flat):
        expected += [
            (step, values),
            (10 + step, {**{f"train/{k}": v for k, v in values.items()}, "5/0": 1.0}),
            (20 + step, {f"0/{k}": v for k, v in values.items()}),
        ]
    assert journal_rows(tmp_path / "r") == expected


def test_arrays_of_one_element_and_odd_numbers_are_scalars(logger, memory):
    mesh = mesh_of(1)
    values = {
        "one": jnp.ones(1),
        "square": jnp.full((1, 1), 2.0),
        "np": np.full((1, 1, 1), 3.0),
        "sharded": jax.device_put(jnp.full(1, 4.0), NamedSharding(mesh, P("a"))),
        "replicated": jax.device_put(jnp.full((1, 1), 5.0), NamedSharding(mesh_of(8), P())),
        "decimal": Decimal("6.5"),
        "fraction": Fraction(15, 2),
        "intenum": enum.IntEnum("Level", {"HIGH": 8}).HIGH,
        "npbool": np.True_,
        "jaxbool": jnp.asarray(True),
    }
    for step in range(3):
        logger.log(values, step)
    logger.flush()
    expected = {**dict(zip(list(values)[:6], (1, 2, 3, 4, 5, 6.5), strict=True))}
    expected |= {"fraction": 7.5, "intenum": 8.0, "npbool": 1.0, "jaxbool": 1.0}
    assert memory.rows == [(step, expected) for step in range(3)]
    assert logger.failures == ()


def test_nothing_to_log_is_no_failure(logger):
    for metrics in ({}, None, [], {"a": None}, {"a": {}}):
        logger.log(metrics, 0)
    logger.flush()
    assert logger.failures == ()


@pytest.mark.parametrize(
    ("step", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError), (None, TypeError)]
)
def test_a_bad_step_is_refused(logger, step, error):
    with pytest.raises(error, match="`step` must be"):
        logger.log({"a": 1.0}, step)


def test_a_step_may_be_any_integer(logger, memory):
    for step in (np.int32(1), np.int64(2**40), jnp.int32(5)):
        logger.log({"a": 1.0}, step)
    logger.flush()
    assert [step for step, _ in memory.rows] == [1, 2**40, 5]


def test_log_inside_jit_is_refused_with_its_mend(logger):
    with pytest.raises(TypeError, match="'a' belongs to a trace.*Return the value from the step"):
        jax.jit(lambda x: logger.log({"a": x}, 0))(1.0)


def test_log_after_close_is_refused(logger):
    logger.close()
    with pytest.raises(RuntimeError, match="`log` was called after `close\\(\\)` of run 'r'"):
        logger.log({"a": 1.0}, 0)
    with pytest.raises(RuntimeError, match="`log_hparams` was called after"):
        logger.log_hparams({})


def test_a_bad_total_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`total_steps` must be 0 or more, got -3"):
        ld.Logger(Memory(), log_dir=tmp_path, total_steps=-3)


def test_a_value_may_be_donated_to_the_next_step(logger, memory):
    @functools.partial(jax.jit, donate_argnums=0)
    def train(state):
        return {"rate": state["rate"] * 1.0 + 1.0, "count": state["count"] + 1}

    state = {"rate": jnp.float32(0), "count": jnp.int32(0)}
    for step in range(50):
        state = train(state)
        logger.log(state, step)
    logger.flush()
    assert [(row["rate"], row["count"]) for _, row in memory.rows] == [
        (step + 1.0, step + 1) for step in range(50)
    ]
    assert logger.failures == ()


def test_a_value_that_was_donated_before_is_named(logger, memory):
    gone = jnp.float32(1) + 2
    gone.delete()
    with pytest.warns(ld.LoggingWarning, match="metric 'gone' was deleted: it has been donated"):
        logger.log({"gone": gone, "good": 1.0}, 0)
    logger.log({"gone": jnp.float32(2), "good": 1.0}, 1)
    logger.flush()
    assert memory.rows == [(0, {"good": 1.0}), (1, {"gone": 2.0, "good": 1.0})]


# In a process of its own, in which JAX does not work well after that.
FAILS = """
import os, sys, warnings
warnings.simplefilter("ignore")
import jax, jax.numpy as jnp
import lerax_dist as ld
from jax.sharding import PartitionSpec as P
from tests.loop import mesh_of
from tests.memory import Memory

def fail(x):
    raise ZeroDivisionError("the device is gone")

# On two devices, for with one a program that calls the host is run by its caller.
mapped = jax.shard_map(
    lambda x: jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), x),
    mesh=mesh_of(2), in_specs=P(), out_specs=P(), check_vma=False,
)
memory = Memory()
logger = ld.Logger(memory, "r", log_dir=sys.argv[1])
logger.log({"bad": jax.jit(mapped)(jnp.float32(1)), "good": 2.0}, 0)
logger.log({"good": 3.0}, 1)
logger.close()
assert memory.rows == [(0, {"good": 2.0}), (1, {"good": 3.0})], memory.rows
(failure,) = logger.failures
assert "bad" in failure.message and "the device is gone" in failure.message, failure
print("done", flush=True)
os._exit(0)
"""


def test_a_value_that_fails_to_be_computed_costs_no_other(tmp_path):
    command = [sys.executable, "-c", FAILS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr


def test_hyperparameters_reach_backends_as_plain_values(tmp_path, memory):
    given = {"rate": jnp.asarray(0.5), "sizes": np.arange(3), "many": (1, 2.5), "f": len, "n": None}
    with ld.Logger(memory, "h", log_dir=tmp_path, hparams=given):
        pass
    plain = {"rate": 0.5, "sizes": [0, 1, 2], "many": [1, 2.5], "f": "len", "n": None}
    assert memory.calls[1] == ("hparams", plain)


@pytest.mark.parametrize(
    ("error", "state"),
    [(SystemExit(0), "finished"), (SystemExit(), "finished"), (SystemExit(3), "failed")],
)
def test_leaving_by_sys_exit_is_no_failure_unless_it_says_so(tmp_path, error, state):
    with pytest.raises(SystemExit), ld.Logger(Memory(), "e", log_dir=tmp_path):
        raise error
    assert journal_records(tmp_path / "e")[-1].body["state"] == state


def test_a_clip_of_a_plain_loop_reaches_backends_and_is_kept_without_loss(logger, memory):
    frames = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
    kept = frames.copy()
    logger.log({"loss": 1.0}, 6)
    logger.log_video("eval/video", frames, 7, fps=10.0)
    frames[:] = 0
    logger.flush()
    assert ("video", "eval/video", (3, 4, 5, 3), 7, 10.0) in memory.calls
    (event,) = [r for r in journal_records(logger.run_dir) if getattr(r, "kind", "") == "video"]
    assert (event.body["step"], event.body["tag"]) == (7, "eval/video")
    # Read from its file.
    np.testing.assert_array_equal(memory.clips[0][1], kept)
    assert (logger.run_dir / event.body["file"]).exists()


@pytest.mark.parametrize("tag", ["../out", "/abs", "", "a\\b", 3])
def test_a_tag_that_leads_out_of_the_run_is_refused(logger, tag):
    with pytest.raises(ValueError, match="`tag` must be a name"):
        logger.log_video(tag, np.zeros((1, 2, 2, 3), np.uint8), 0)


def test_frames_that_are_none_and_a_speed_that_is_none_are_refused(logger):
    with pytest.raises(ValueError, match="`frames` must be uint8"):
        logger.log_video("v", np.zeros((2, 2, 3)), 0)
    with pytest.raises(ValueError, match="`fps` must be positive"):
        logger.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), 0, fps=0.0)
