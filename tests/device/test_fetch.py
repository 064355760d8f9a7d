"""Rows of a plain loop: known again without a look at each metric, and still checked."""

import os
import random
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import mesh_of
from tests.memory import Memory
from tests.peers import writer_and_idle
from tests.program import compilations, compiled_ahead, python_lines
from tests.readers import journal_row_records, journal_rows

# Rows with few metrics and with many: what is not done for each metric costs both the same.
FEW, MANY = 4, 40


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def open_logger(tmp_path):
    """Opens loggers, each a run of its own."""
    names = iter(map(str, range(100)))
    return lambda backend=None: ld.Logger(backend or Memory(), next(names), log_dir=tmp_path)


@pytest.fixture
def logger(memory, tmp_path):
    with ld.Logger(memory, "r", log_dir=tmp_path) as logger:
        yield logger


@pytest.fixture(params=["writer", "idle"])
def either(request, tmp_path):
    """The logger of the process that writes, or of one that does not: both check alike."""
    writer, idle = writer_and_idle(
        lambda group: ld.Logger(
            Memory(), "pair", log_dir=tmp_path, group=group, scope="global", strict=True
        )
    )
    yield writer if request.param == "writer" else idle
    idle.close()
    writer.close()


def logged(logger, memory, *rows):
    """Logs these rows, and gives what the backend got."""
    for step, metrics in enumerate(rows):
        logger.log(metrics, step)
    logger.flush()
    return [row for _, row in memory.rows]


def row_of(count, prefix="m", value=1.0):
    return {f"{prefix}{place}": jnp.float32(value) for place in range(count)}


def are_alike(few, many):
    """Whether as many lines of Python ran, but for some that any call may run now and then."""
    return np.max(np.abs(np.subtract(few, many))) < (MANY - FEW) / 4


def test_rows_of_one_layout_are_known_again(logger, memory):
    rows = [
        {
            "train": {"loss": jnp.float32(step), "deep": {"norm": jnp.float32(2 * step)}},
            "rate": step / 7,
            "count": 2**40 + 1,
        }
        for step in range(5)
    ]
    got = logged(logger, memory, *rows)
    for step, row in enumerate(got):
        assert list(row) == ["train/loss", "train/deep/norm", "rate", "count"]
        assert list(row.values()) == [step, 2 * step, step / 7, 2**40 + 1]


def test_the_training_thread_runs_no_python_for_each_metric(open_logger):
    def lines(count):
        with open_logger() as logger:
            values = jax.jit(lambda: row_of(count))()
            first = python_lines(logger.log, values, 0)
            return first, python_lines(logger.log, values, 1)

    (few, few_again), (many, many_again) = lines(FEW), lines(MANY)
    assert are_alike(few_again, many_again)
    # The first row is looked at metric by metric.
    assert many - few > MANY - FEW


def test_rows_that_differ_in_their_names_are_copied_by_one_program(logger, memory, monkeypatch):
    compiled = compiled_ahead(monkeypatch)
    rows = [
        {f"task{task}/loss": jnp.float32(step), "count": jnp.int32(task)}
        for step in range(3)
        for task in range(30)
    ]
    assert logged(logger, memory, *rows) == [
        {f"task{task}/loss": step, "count": task} for step in range(3) for task in range(30)
    ]
    assert len(compiled) <= 1


def test_thirty_kinds_of_rows_are_known_again(open_logger):
    def lines(count):
        with open_logger() as logger:
            rows = [row_of(count, f"task{task}/") for task in range(30)]
            for row in rows:
                logger.log(row, 0)
            return [python_lines(logger.log, row, 1) for row in rows]

    assert are_alike(lines(FEW), lines(MANY))


@pytest.mark.parametrize("writes", [True, False])
def test_a_kind_of_row_that_comes_often_is_not_forgotten_for_those_that_come_once(tmp_path, writes):
    def lines(count):
        pair = writer_and_idle(
            lambda group: ld.Logger(
                Memory(), str(count), log_dir=tmp_path, group=group, scope="global"
            )
        )
        logger = pair[not writes]
        logger.log(row_of(count), 0)
        found = 0
        for task in range(100):
            logger.log({f"task{task}/loss": jnp.float32(task)}, task)
            found = max(found, python_lines(logger.log, row_of(count), task))
        for each in pair:
            each.close()
        return found

    few, many = lines(FEW), lines(MANY)
    # A process that does not write runs a line for each array; to look at one takes forty.
    assert many - few < (MANY - FEW) * (0.25 if writes else 4)


def test_values_that_take_turns_on_two_devices_are_known_again(open_logger, monkeypatch):
    compiled = compiled_ahead(monkeypatch)

    def lines(count):
        memory = Memory()
        with open_logger(memory) as logger:
            found = []
            for step in range(10):
                device = jax.devices()[step % 2]
                row = jax.device_put(row_of(count, value=step), device)
                # JAX itself looks at each array of a row that is on other devices.
                found.append(python_lines(logger.log, row, step, within="lerax_dist"))
        assert [set(row.values()) for _, row in memory.rows] == [{step} for step in range(10)]
        return found[2:]

    assert are_alike(lines(FEW), lines(MANY))
    assert len(compiled) <= 4


def test_a_process_that_does_not_write_compiles_nothing(tmp_path, monkeypatch):
    writer, idle = writer_and_idle(
        lambda group: ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="global")
    )
    compiled = compiled_ahead(monkeypatch)
    # As many as no other test has: their program would be there already.
    metrics = {f"m{place}": jnp.float16(place) for place in range(11)}
    idle.log(metrics, 0)
    assert not compiled
    writer.log(metrics, 0)
    assert len(compiled) == 1
    idle.close()
    writer.close()


@pytest.mark.parametrize(("kind", "count"), [(AxisType.Auto, 12), (AxisType.Explicit, 13)])
def test_a_row_may_be_logged_where_a_mesh_is_set(logger, memory, kind, count):
    mesh = mesh_of(2, kind=kind)
    one = jnp.float32(1)
    second = jax.device_put(one, jax.devices()[1])
    both = jax.device_put(one, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        values = [one, second, both, one + both]
        # As many as no other test has: their program would be there already.
        rows = [{f"m{i}": value for i in range(count)} for value in values]
        for step, row in enumerate(rows):
            logger.log(row, step)
    logger.flush()
    assert [set(row.values()) for _, row in memory.rows] == [{1.0}, {1.0}, {1.0}, {2.0}]


def test_a_row_may_be_logged_while_something_else_is_traced(logger, memory):
    metrics = {f"m{i}": jnp.float32(i) for i in range(14)}
    jax.grad(lambda x: (logger.log(metrics, 0), x)[1])(1.0)
    logger.flush()
    assert memory.rows == [(0, {f"m{i}": i for i in range(14)})]


def test_values_of_64_bits_stay_so(logger, memory):
    with jax.enable_x64(True):
        value = jnp.asarray(1 / 3, jnp.float64)
    assert logged(logger, memory, {"a": value, "b": jnp.float32(1)}) == [{"a": 1 / 3, "b": 1.0}]


def test_a_change_of_weak_type_compiles_nothing_anew(logger, memory, monkeypatch):
    weak, strong = jnp.asarray(1.5), jnp.asarray(1.5, jnp.float32)
    assert weak.weak_type and not strong.weak_type
    logger.log({"a": weak, "b": weak}, 0)
    compiled = compiled_ahead(monkeypatch)
    pairs = [(weak, weak), (weak, strong), (strong, weak), (strong, strong)]
    got = logged(logger, memory, *({"a": first, "b": second} for first, second in pairs))
    assert got == [{"a": 1.5, "b": 1.5}] * 5
    assert not compiled


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (jnp.ones(3), ValueError, r"'a' must be a scalar, got shape \(3,\)"),
        (jnp.complex64(1), TypeError, "'a' has dtype complex64"),
        (np.ones(2), ValueError, r"'a' must be a scalar, got shape \(2,\)"),
        ("x", TypeError, "'a' is 'x' of type str"),
        (np.complex128(1j), TypeError, "'a' is .* of type complex128"),
    ],
)
def test_a_later_row_is_checked_like_the_first(either, value, error, match):
    for step, good in enumerate((jnp.float32(1), np.zeros(()))):
        either.log({"a": good, "b": 1.0}, step)
    with pytest.raises(error, match=match):
        either.log({"a": value, "b": 1.0}, 2)


def test_a_value_of_a_later_row_that_is_gone_is_named(either):
    either.log({"a": jnp.float32(1), "b": 1.0}, 0)
    gone = jnp.float32(2)
    gone.delete()
    with pytest.raises(ValueError, match="'a' was deleted: it has been donated"):
        either.log({"a": gone, "b": 1.0}, 1)


def test_arrays_of_another_dtype_or_place_are_taken_as_they_are(logger, memory):
    values = (
        jnp.float32(3),
        jnp.int32(3),
        jax.device_put(jnp.float32(3), jax.devices()[1]),
        jax.device_put(jnp.float32(3), NamedSharding(mesh_of(8), P())),
        jnp.bfloat16(3),
        jnp.float32(3),
    )
    got = logged(logger, memory, *({"a": value, "b": jnp.float32(4)} for value in values))
    assert got == [{"a": 3, "b": 4}] * 6


def test_a_value_is_copied_before_it_is_donated_or_changed(logger, memory):
    changing = np.zeros(())
    train = jax.jit(lambda x: x + 1, donate_argnums=0)
    value = jnp.float32(0)
    for step in range(20):
        value = train(value)
        changing += 1
        logger.log({"value": value, "changing": changing}, step)
    logger.flush()
    assert [row for _, row in memory.rows] == [{"value": n, "changing": n} for n in range(1, 21)]


def test_rows_that_differ_in_a_name_an_order_or_a_type_are_others(logger, memory):
    rows = [
        {"a": {"x": 1.0}, "b": 2.0},
        {"a": {"x": 3.0}, "b": 4.0},
        {"a": {"y": 1.0}, "b": 2.0},
        {"b": 2.0, "a": {"x": 1.0}},
        {"a": {"x": 1}, "b": 2.0},
        {"a": 1.0, "b": 2.0},
        {"a": {"x": 1.0, "y": 5.0}, "b": 2.0},
    ]
    got = logged(logger, memory, *rows)
    assert [list(row.items()) for row in got] == [
        [("a/x", 1.0), ("b", 2.0)],
        [("a/x", 3.0), ("b", 4.0)],
        [("a/y", 1.0), ("b", 2.0)],
        [("b", 2.0), ("a/x", 1.0)],
        [("a/x", 1.0), ("b", 2.0)],
        [("a", 1.0), ("b", 2.0)],
        [("a/x", 1.0), ("a/y", 5.0), ("b", 2.0)],
    ]


def test_whatever_is_logged_a_bounded_number_of_programs_is_compiled(tmp_path):
    """For each dtype, shape and device one of each size: 8, 32 and 64 scalars."""
    choose = random.Random(0)
    kinds = (jnp.float32, jnp.int32)
    values = {f"m{i}": jax.device_put(np.asarray(i, kinds[i % 2])) for i in range(400)}
    one_by_one = {"square": jnp.ones((1, 1)), "cube": jnp.ones((1, 1, 1))}
    vector = ld.Mean(jnp.float32(1), jnp.float32(2))
    rows = [dict(choose.sample(list(values.items()), 200)) for _ in range(500)]
    rows += [dict(choose.sample(list(values.items()), size)) for size in range(1, 80)]
    rows += [{**row, **one_by_one, "mean": vector} for row in rows[:20]]
    rows += [{f"n{i}": values["m1"] for i in range(10_000)}]
    with (
        ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger,
        compilations() as compiled,
    ):
        for step, row in enumerate(rows):
            logger.log(row, step)
            if step % 3 == 0:
                logger.log({"train": row, "rate": 0.1}, step)
        logger.flush()
    assert logger.failures == ()
    # Two dtypes; less, if other tests have run before.
    assert len(compiled) <= 2 * 3
    plain = {"rate": 0.1, "square": 1.0, "cube": 1.0, "mean": 0.5}
    read = journal_rows(tmp_path / "r")
    assert len(read) == len(rows) + len(range(0, len(rows), 3))
    for step, got in read:
        names = {name.removeprefix("train/"): value for name, value in got.items()}
        expected = {
            name: plain[name] if name in plain else float(name[1:]) if name[0] == "m" else 1.0
            for name in (*rows[step], *(["rate"] if "rate" in got else []))
        }
        assert names == expected


def test_a_value_without_a_program_is_copied_before_it_is_donated(logger, memory):
    train = jax.jit(lambda x: x + 1, donate_argnums=0)
    value = jnp.zeros((1, 1))
    for step in range(5):
        value = train(value)
        logger.log({"value": value, "mean": ld.Mean(value[0, 0], 2)}, step)
    logger.flush()
    assert memory.rows == [(n - 1, {"value": n, "mean": n / 2}) for n in range(1, 6)]


# An atexit handler, in which no thread starts any more; other threads; and no compilation at all.
LATE = """
import atexit, sys, threading
import jax, jax.numpy as jnp, numpy as np
import lerax_dist as ld

logger = ld.Logger(ld.NoOpBackend(), "r", log_dir=sys.argv[1])
values = {kind: jnp.asarray(3, kind) for kind in ("float32", "int32", "float16", "int8")}
many = {f"m{i}": values["float16"] for i in range(100)}
threads = [
    threading.Thread(target=logger.log, args=({"x": values[kind]}, step))
    for step, kind in enumerate(["float32", "int32"])
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
atexit.register(lambda: logger.log({"late": values["int8"], **many}, 2))
"""


@pytest.mark.parametrize("variable", ["JAX_DISABLE_JIT", "JAX_ENABLE_X64"])
def test_a_new_layout_is_logged_in_threads_and_at_the_exit_of_the_program(tmp_path, variable):
    subprocess.run(
        [sys.executable, "-c", LATE, str(tmp_path)],
        env={**os.environ, variable: "1"},
        timeout=120,
        check=True,
    )
    first, second, late = sorted(journal_rows(tmp_path / "r"))
    assert (first, second) == ((0, {"x": 3.0}), (1, {"x": 3.0}))
    assert late == (2, {"late": 3.0, **{f"m{i}": 3.0 for i in range(100)}})


class Shares(ld.AbstractPartial):
    counts: Any

    def sums(self, maxima, first):
        return (self.counts,)

    @staticmethod
    def finish(sums, maxima, numpy):
        return ld.Finished({"": sums[0] / sums[0].sum(axis=0)}, sums[0].sum(axis=0))


class Broken(ld.AbstractPartial):
    count: Any

    def sums(self, maxima, first):
        return (self.count,)

    @staticmethod
    def finish(sums, maxima, numpy):
        raise ZeroDivisionError("a mistake")


def test_partials_are_finished_as_in_a_step(tmp_path):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        for step in range(3):
            metrics = {
                "mean": ld.Mean.of(jnp.arange(4.0), where=jnp.arange(4) < step),
                "sum": ld.Sum(5),
                "best": {"max": ld.Max(step), "min": ld.Min(-step), "last": ld.Last(0.1)},
                "shares": Shares(jnp.asarray([1.0, 3.0])),
                "host": Shares(np.asarray([1.0, 0.0, 3.0])),
                "plain": float(step),
            }
            logger.log(metrics, step)
        assert logger.failures == ()
        logger.log({"broken": Broken(jnp.float32(1)), "sum": ld.Sum(1), "x": jnp.float32(2)}, 3)
        logger.log({"strange": ld.Sum(jnp.float32(1)).value.delete, "x": 2.0}, 4)
        logger.flush()
    assert len(logger.failures) == 2
    assert "`finish` of 'broken' failed (ZeroDivisionError('a mistake'))" in str(logger.failures)
    rows = dict(journal_rows(tmp_path / "r"))
    for step in range(3):
        expected = {"plain": step, "sum": 5, "best/max": step, "best/min": 0.0 - step}
        expected |= {"best/last": 0.1, "mean": (step - 1) / 2}
        if step == 0:
            del expected["mean"]
        assert rows[step] == expected
    for row in journal_row_records(tmp_path / "r")[:3]:
        vectors = {name: values.tolist() for name, values in row.vectors.items()}
        assert vectors == {"shares": [0.25, 0.75], "host": [0.25, 0.0, 0.75]}
    assert (rows[3], rows[4]) == ({"sum": 1.0, "x": 2.0}, {"x": 2.0})
