"""Rows of a plain loop: known again without a look at each metric, and still checked."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lerax_dist._layout import Layout
from lerax_dist.device import _fetch
from lerax_dist.device._fetch import Fetcher


def row(fetched):
    names, numbers, arrays = fetched
    values = dict.fromkeys(names)
    values |= numbers
    for some, vector in arrays:
        values |= zip(some, np.asarray(vector).tolist(), strict=True)
    return values


def plans(monkeypatch):
    """The metrics that were looked at one by one."""
    looked_at = []
    check = _fetch.check_metrics

    def look(flat, here):
        looked_at.append(flat)
        check(flat, here)

    monkeypatch.setattr(_fetch, "check_metrics", look)
    return looked_at


def programs(monkeypatch):
    """The programs that were compiled ahead of their call, as those that copy a row are."""
    compiled = []
    compile_ = jax.stages.Lowered.compile

    def count(lowered, *args, **options):
        compiled.append(lowered)
        return compile_(lowered, *args, **options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", count)
    return compiled


def nested(value, rate=0.5):
    return {"train": {"loss": value, "deep": {"norm": value * 2}}, "rate": rate, "count": 2**40 + 1}


def test_rows_of_one_layout_are_looked_at_once(monkeypatch):
    looked_at = plans(monkeypatch)
    fetcher = Fetcher()
    for step in range(5):
        got = row(fetcher.fetch(nested(jnp.float32(step), rate=step / 7)))
        assert list(got) == ["train/loss", "train/deep/norm", "rate", "count"]
        assert list(got.values()) == [step, 2 * step, step / 7, 2**40 + 1]
    assert len(looked_at) == 1


def test_rows_that_differ_in_their_names_are_copied_by_one_program(monkeypatch):
    looked_at, compiled = plans(monkeypatch), programs(monkeypatch)
    fetcher = Fetcher()
    for step in range(3):
        for task in range(30):
            metrics = {f"task{task}/loss": jnp.float32(step), "count": jnp.int32(task)}
            assert row(fetcher.fetch(metrics)) == {f"task{task}/loss": step, "count": task}
    assert len(looked_at) == 30
    assert len(compiled) <= 1


def test_a_kind_of_row_that_comes_often_is_not_forgotten_for_those_that_come_once(monkeypatch):
    for way in ("fetch", "check"):
        looked_at = plans(monkeypatch)
        fetcher = Fetcher()
        for task in range(100):
            getattr(fetcher, way)({"loss": jnp.float32(task)})
            getattr(fetcher, way)({f"task{task}/loss": jnp.float32(task)})
        assert len(looked_at) == 101
        monkeypatch.undo()


def test_values_that_take_turns_on_two_devices_are_looked_at_once_each(monkeypatch):
    looked_at, compiled = plans(monkeypatch), programs(monkeypatch)
    fetcher = Fetcher()
    for step in range(10):
        value = jax.device_put(jnp.float32(step), jax.devices()[step % 2])
        assert row(fetcher.fetch({"a": value})) == {"a": step}
    assert len(looked_at) == 2
    assert len(compiled) <= 2


def test_a_process_that_does_not_write_compiles_nothing(monkeypatch):
    compiled = programs(monkeypatch)
    # As many as no other test has: their program would be there already.
    metrics = {f"m{i}": jnp.float16(i) for i in range(11)}
    Fetcher().check(metrics)
    assert not compiled
    Fetcher().fetch(metrics)
    assert len(compiled) == 1


@pytest.mark.parametrize(("kind", "count"), [(AxisType.Auto, 12), (AxisType.Explicit, 13)])
def test_a_row_may_be_logged_where_a_mesh_is_set(kind, count):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",), axis_types=(kind,))
    one = jnp.float32(1)
    second = jax.device_put(one, jax.devices()[1])
    both = jax.device_put(one, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        for value in (one, second, both, one + both):
            # As many as no other test has: their program would be there already.
            metrics = {f"m{i}": value for i in range(count)}
            assert row(Fetcher().fetch(metrics)) == dict.fromkeys(metrics, float(value))


def test_a_row_may_be_logged_while_something_else_is_traced():
    metrics = {f"m{i}": jnp.float32(i) for i in range(14)}
    jax.grad(lambda x: (Fetcher().fetch(metrics), x)[1])(1.0)


def test_values_of_64_bits_stay_so():
    with jax.enable_x64(True):
        value = jnp.asarray(1 / 3, jnp.float64)
    assert row(Fetcher().fetch({"a": value, "b": jnp.float32(1)})) == {"a": 1 / 3, "b": 1.0}


def bytecodes(call, *args):
    """How many lines of Python a call runs."""
    lines = 0

    def trace(frame, event, arg):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call(*args)
    finally:
        sys.settrace(before)
    return lines


def test_the_training_thread_runs_no_python_for_each_metric():
    def lines(count):
        fetcher = Fetcher()
        values = jax.jit(lambda: {f"m{i}": jnp.float32(i) for i in range(count)})()
        fetcher.fetch(values)
        return bytecodes(fetcher.fetch, values)

    assert lines(4) == lines(64)


def test_a_change_of_weak_type_compiles_nothing_anew(monkeypatch):
    looked_at = plans(monkeypatch)
    fetcher = Fetcher()
    weak, strong = jnp.asarray(1.5), jnp.asarray(1.5, jnp.float32)
    assert weak.weak_type and not strong.weak_type
    for first, second in [(weak, weak), (weak, strong), (strong, weak), (strong, strong)]:
        assert row(fetcher.fetch({"a": first, "b": second})) == {"a": 1.5, "b": 1.5}
    assert len(looked_at) == 1


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
@pytest.mark.parametrize("way", ["fetch", "check"])
def test_a_later_row_is_checked_like_the_first(value, error, match, way):
    fetcher = Fetcher()
    for good in (jnp.float32(1), np.zeros(())):
        getattr(fetcher, way)({"a": good, "b": 1.0})
    with pytest.raises(error, match=match):
        getattr(fetcher, way)({"a": value, "b": 1.0})


@pytest.mark.parametrize("way", ["fetch", "check"])
def test_a_value_of_a_later_row_that_is_gone_is_named(way):
    fetcher = Fetcher()
    getattr(fetcher, way)({"a": jnp.float32(1), "b": 1.0})
    gone = jnp.float32(2)
    gone.delete()
    with pytest.raises(ValueError, match="'a' was deleted: it has been donated"):
        getattr(fetcher, way)({"a": gone, "b": 1.0})


def test_arrays_of_another_dtype_or_place_are_taken_as_they_are():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",), axis_types=(AxisType.Auto,))
    fetcher = Fetcher()
    for value in (
        jnp.float32(3),
        jnp.int32(3),
        jax.device_put(jnp.float32(3), jax.devices()[1]),
        jax.device_put(jnp.float32(3), NamedSharding(mesh, P())),
        jnp.bfloat16(3),
        jnp.float32(3),
    ):
        assert row(fetcher.fetch({"a": value, "b": jnp.float32(4)})) == {"a": 3, "b": 4}


def test_a_value_is_copied_before_it_is_donated_or_changed():
    fetcher = Fetcher()
    changing = np.zeros(())
    train = jax.jit(lambda x: x + 1, donate_argnums=0)
    value = jnp.float32(0)
    rows = []
    for _ in range(20):
        value = train(value)
        changing += 1
        rows.append(fetcher.fetch({"value": value, "changing": changing}))
    assert [row(one) for one in rows] == [{"value": n, "changing": n} for n in range(1, 21)]


def test_layouts_that_differ_in_a_name_an_order_or_a_type_are_others():
    layout = Layout({"a": {"x": 1.0}, "b": 2.0})
    assert layout.values({"a": {"x": 3.0}, "b": 4.0}) == [{"x": 3.0}, 4.0, 3.0]
    assert layout.names() == ["", "b", "a/x"]
    for other in (
        {"a": {"y": 1.0}, "b": 2.0},
        {"b": 2.0, "a": {"x": 1.0}},
        {"a": {"x": 1}, "b": 2.0},
        {"a": 1.0, "b": 2.0},
        {"a": {"x": 1.0, "y": 1.0}, "b": 2.0},
        [1],
    ):
        assert layout.values(other) is None
