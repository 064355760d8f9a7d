"""Merged metrics against NumPy on the same data, over several splits of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from lerax_dist import Last, Max, Mean, Min, Sum, reduce
from lerax_dist.device import _pack
from tests.loop import iteration, mesh_of, step_states
from tests.memory import Memory
from tests.peers import open_together
from tests.program import callbacks, collective_operands, compiled_text

VALUES = np.random.default_rng(7).normal(3.0, 2.0, size=(12, 5)).astype(np.float32)
MASK = np.random.default_rng(8).random((12, 5)) < 0.4


@pytest.fixture
def rng():
    """One for each test, which gets the same numbers whatever ran before it."""
    return np.random.default_rng(9)


def metrics_of(values, mask):
    return {
        "plain": values.mean(),
        "nested": {
            "mean": Mean.of(values, where=mask),
            "sum": Sum(values.sum()),
            "max": Max(values.max()),
            "min": Min(values.min()),
        },
        "same": Last(jnp.float32(0.1)),
        "whole": 7,
    }


EXPECTED = {
    "plain": VALUES.astype(np.float64).mean(),
    "nested/mean": VALUES[MASK].astype(np.float64).mean(),
    "nested/sum": VALUES.astype(np.float64).sum(),
    "nested/max": VALUES.max(),
    "nested/min": VALUES.min(),
    "same": np.float32(0.1),
    "whole": 7.0,
}


def check(metrics):
    assert sorted(metrics) == sorted(EXPECTED)
    for name, value in EXPECTED.items():
        np.testing.assert_allclose(np.asarray(metrics[name]), value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (6,), (2, 2)])
def test_reduce_in_shard_map_equals_numpy(shape, check_vma):
    mesh = mesh_of(*shape)
    step = jax.shard_map(
        lambda v, m: reduce(metrics_of(v, m)),
        mesh=mesh,
        in_specs=P(mesh.axis_names),
        out_specs=P(),
        check_vma=check_vma,
    )
    check(jax.jit(step)(VALUES, MASK))


def test_reduce_in_pmap_equals_numpy():
    values, mask = VALUES.reshape(4, 3, 5), MASK.reshape(4, 3, 5)
    out = jax.pmap(lambda v, m: reduce(metrics_of(v, m)), axis_name="q")(values, mask)
    check({name: np.asarray(value)[0] for name, value in out.items()})
    for value in out.values():
        assert len(set(np.asarray(value).tolist())) == 1


def test_reduce_under_plain_jit_on_sharded_arrays_equals_numpy():
    sharding = jax.sharding.NamedSharding(mesh_of(4), P("a"))
    values, mask = jax.device_put((VALUES, MASK), sharding)
    check(jax.jit(lambda v, m: reduce(metrics_of(v, m)))(values, mask))
    check(reduce(metrics_of(jnp.asarray(VALUES), jnp.asarray(MASK))))


def test_a_value_that_is_the_same_along_an_axis_is_counted_once_along_it():
    """Two data shards, each on two devices of a model axis: the sum is not doubled."""
    step = jax.shard_map(
        lambda v, m: reduce(metrics_of(v, m)), mesh=mesh_of(2, 2), in_specs=P("a"), out_specs=P()
    )
    check(jax.jit(step)(VALUES, MASK))


def test_last_along_axes_of_which_it_differs_along_one():
    step = jax.shard_map(
        lambda v: reduce({"last": Last(v[0, 0] + 10)}),
        mesh=mesh_of(2, 2),
        in_specs=P("a"),
        out_specs=P(),
    )
    np.testing.assert_allclose(jax.jit(step)(VALUES)["last"], VALUES[0, 0] + 10, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("devices", [1, 2, 3, 5, 6, 7])
def test_last_is_the_same_to_the_last_bit_over_any_number_of_devices(tmp_path, devices, double):
    """In the step and on the host."""
    values = [7.0, -0.1, 3e-4, 3e38, 1e-42, -0.0, np.nan, -np.inf]
    memory = Memory()
    with jax.enable_x64(double), ld.LoggingCallback(memory, log_dir=tmp_path) as logger:

        def step(own):
            lasts = {str(place): Last(own[0, place]) for place in range(len(values))}
            iteration(logger, step_states([1]), lasts)
            return jnp.stack([*reduce(lasts).values()])

        # Each device has values of its own, and those of the first one are taken.
        data = jnp.asarray(values) + jnp.arange(float(devices))[:, None]
        data = data.at[0].set(jnp.asarray(values))
        mapped = jax.shard_map(step, mesh=mesh_of(devices), in_specs=P("a"), out_specs=P())
        in_step = jax.jit(mapped)(data)
        expected = np.asarray(data[0])
        logger.flush()
    np.testing.assert_array_equal(np.asarray(in_step), expected)
    ((_, row),) = memory.rows
    on_host = np.array([row[f"train/{place}"] for place in range(len(values))])
    np.testing.assert_array_equal(on_host.astype(expected.dtype), expected)
    assert in_step.dtype == expected.dtype and np.signbit(on_host[5])


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", 3), ("uint32", 3), ("int8", -128), ("bool", True)]
)
def test_partials_of_small_integers_do_not_wrap(dtype, value):
    number = jnp.asarray(value, dtype)
    out = reduce({"min": Min(number), "max": Max(number), "sum": Sum(number)})
    assert [float(out[name]) for name in ("min", "max", "sum")] == [value] * 3


@pytest.mark.parametrize("partial", [Sum, Max, Min, Last])
def test_a_partial_of_a_complex_number_is_refused(partial):
    with pytest.raises(TypeError, match="`value` has dtype complex64; metrics are real numbers"):
        partial(jnp.complex64(3 + 1j))


@pytest.mark.parametrize("given", [{"values": 1j * np.ones(2)}, {"values": [1.0], "where": [1j]}])
def test_a_mean_of_complex_numbers_is_refused(given):
    with pytest.raises(TypeError, match=f"`{[*given][-1]}` holds complex numbers"):
        Mean.of(**given)


@pytest.mark.parametrize(
    "value",
    [3 * 10**9, np.int64(3 * 10**9), np.uint64(2**40), np.array(3 * 10**9), -(2**40), 2**70],
)
def test_a_large_integer_of_the_host_is_a_number(value):
    """As a metric, and in a partial."""
    partials = {kind.__name__: kind(value) for kind in (Sum, Max, Min, Last)}
    got = reduce({"plain": value, "mean": Mean(total=value, count=1), **partials})
    assert [float(each) for each in got.values()] == [np.float32(value)] * 6


def test_axis_name_narrows_the_reduction():
    step = jax.shard_map(
        lambda v, m: reduce(metrics_of(v, m), axis_name="a"),
        mesh=mesh_of(2, 2),
        in_specs=P("a"),
        out_specs=P(),
        check_vma=False,
    )
    check(jax.jit(step)(VALUES, MASK))


def test_an_axis_that_is_not_in_scope_is_refused():
    with pytest.raises(ValueError, match="`axis_name` names 'c', which is not in scope"):
        jax.jit(lambda v: reduce({"x": v}, axis_name="c"))(1.0)


def test_reduce_over_a_vmapped_axis_that_is_named():
    values = jnp.arange(6.0)
    out = jax.vmap(lambda v: reduce({"m": v, "s": Sum(v)}, axis_name="pop"), axis_name="pop")(
        values
    )
    assert out["m"].tolist() == [2.5] * 6
    assert out["s"].tolist() == [15.0] * 6


def test_a_mean_of_nothing_is_nan_in_the_step():
    out = reduce({"m": Mean.of(jnp.ones(3), where=jnp.zeros(3, bool))})
    assert np.isnan(out["m"])


def test_masked_values_may_be_nan():
    out = reduce({"m": Mean.of(jnp.array([1.0, jnp.nan]), where=jnp.array([True, False]))})
    assert out["m"] == 1.0


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (jnp.ones((3, 2)), ValueError, r"metric 'a/b' must be a scalar, got shape \(3, 2\)"),
        ("text", TypeError, "metric 'a/b' is 'text' of type str; metrics are numbers"),
        (None, TypeError, "metric 'a/b' is None"),
        (jnp.complex64(1), TypeError, "metric 'a/b' has dtype complex64"),
    ],
)
def test_a_value_that_is_no_scalar_is_named(value, error, match):
    with pytest.raises(error, match=match):
        reduce({"a": {"b": value}})


@pytest.mark.parametrize("partial", [Sum, Max, Min, Last])
def test_a_partial_of_an_array_is_refused_with_its_shape(partial):
    with pytest.raises(ValueError, match=r"`value` must be a scalar, got shape \(3,\)"):
        partial(jnp.ones(3))


def states_of(returns, lengths, steps):
    """Step states of environments that have ended an episode where their length is above 0."""
    ended = lengths > 0
    return ld.LoggingCallbackStepState(steps, returns, lengths.astype(int), ended, returns, lengths)


def only_row(memory):
    """Step of the one row that was logged, and its metrics but for times."""
    ((step, row),) = memory.rows
    return step, {name: value for name, value in row.items() if not name.startswith("time/")}


def merged_episodes(log_dir, returns, lengths, steps, devices):
    """The one row of environments that are split over devices."""
    memory = Memory()
    with ld.LoggingCallback(memory, log_dir=log_dir) as logger:
        mapped = jax.shard_map(
            lambda *states: iteration(logger, states_of(*states), {}),
            mesh=mesh_of(devices),
            in_specs=P("a"),
            out_specs=P(),
            check_vma=False,
        )
        jax.block_until_ready(jax.jit(mapped)(returns, lengths, steps))
    assert logger.failures == ()
    return only_row(memory)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 6])
def test_episode_statistics_count_only_environments_that_have_ended_an_episode(
    tmp_path, devices, rng
):
    returns = rng.normal(100.0, 30.0, 12).astype(np.float32)
    lengths = np.where(np.arange(12) % 3 == 0, 0, 7 + np.arange(12)).astype(np.float32)
    steps = np.arange(12, dtype=np.int32) + 10**8
    step, got = merged_episodes(tmp_path, returns, lengths, steps, devices)
    ended = returns[lengths > 0].astype(np.float64)
    assert step == int(steps.astype(np.int64).sum())
    expected = {
        "episode/return": ended.mean(),
        "episode/return_min": ended.min(),
        "episode/return_max": ended.max(),
        "episode/return_std": ended.std(),
        "episode/length": lengths[lengths > 0].astype(np.float64).mean(),
        "episode/count": 8,
    }
    assert sorted(got) == sorted(expected)
    assert got["episode/count"] == 8
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, err_msg=name)


class Spread(ld.AbstractPartial):
    """A partial of a user whose sums are taken around its maximum."""

    values: jax.Array

    @staticmethod
    def shift(sums, maxima, merged, numpy):
        total, count = sums
        return total + count * (maxima[0] - merged[0]), count

    def maxima(self):
        return (self.values.max(),)

    def sums(self, maxima, first):
        return (self.values - maxima[0]).sum(), jnp.asarray(float(self.values.size))

    @staticmethod
    def finish(sums, maxima, numpy):
        return ld.Finished({"": maxima[0] + sums[0] / sums[1]}, sums[1])


@pytest.mark.parametrize("limit", [8192, 0], ids=["in slots", "by a maximum of their own"])
@pytest.mark.parametrize("devices", [1, 2, 3, 6, 8])
def test_under_plain_jit_statistics_lie_beside_metrics_that_are_global(
    tmp_path, devices, limit, rng, monkeypatch
):
    monkeypatch.setattr(_pack, "_MAX_IN_SLOTS", limit)
    returns = rng.normal(100.0, 30.0, 24).astype(np.float32)
    lengths = np.where(np.arange(24) % 3 == 0, 0, 7 + np.arange(24)).astype(np.float32)
    steps = np.arange(24, dtype=np.int32) + 10**8
    memory = Memory()
    with ld.LoggingCallback(memory, log_dir=tmp_path) as logger:

        def step(*states):
            log = {"max": Max(states[0].max()), "min": Min(states[0].min()), "last": Last(0.1)}
            log |= {"around": Spread(states[0]), "sum": Sum(states[0].sum()), "plain": 0.3}
            iteration(logger, states_of(*states), log)

        sharding = NamedSharding(mesh_of(devices), P("a"))
        jax.block_until_ready(jax.jit(step)(*jax.device_put((returns, lengths, steps), sharding)))
    assert logger.failures == ()
    number, got = only_row(memory)
    assert number == int(steps.astype(np.int64).sum())
    ended, exact = returns[lengths > 0].astype(np.float64), returns.astype(np.float64)
    want = {"train/max": exact.max(), "train/min": exact.min(), "train/last": np.float32(0.1)}
    want |= {"train/around": exact.mean(), "train/sum": exact.sum(), "train/plain": 0.3}
    want |= {"episode/return": ended.mean(), "episode/return_std": ended.std()}
    want |= {"episode/return_min": ended.min(), "episode/return_max": ended.max()}
    want |= {"episode/count": 16, "episode/length": lengths[lengths > 0].mean()}
    assert sorted(got) == sorted(want)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-6, err_msg=name)
    assert got["train/max"] == exact.max()


def test_a_small_spread_around_a_large_return_is_not_lost_in_float32(tmp_path, rng):
    returns = (500 + rng.normal(0, 0.5, 1024)).astype(np.float32)
    ones = np.ones(1024, np.float32)
    _, got = merged_episodes(tmp_path, returns, ones, np.zeros(1024, np.int32), 4)
    exact = returns.astype(np.float64)
    np.testing.assert_allclose(got["episode/return_std"], exact.std(), rtol=1e-5)
    np.testing.assert_allclose(got["episode/return"], exact.mean(), rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, 3e38])
def test_a_return_of_zero_has_no_sign_and_a_huge_one_no_overflow(tmp_path, value):
    ones = np.ones(8, np.float32)
    _, got = merged_episodes(tmp_path, value * ones, ones, np.zeros(8, np.int32), 4)
    assert (
        got["episode/return"]
        == got["episode/return_min"]
        == got["episode/return_max"]
        == np.float32(value)
    )
    assert not np.signbit(got["episode/return_min"])


def test_before_the_first_episode_ends_there_is_no_return_but_a_count_of_0(tmp_path):
    zeros = np.zeros(8, np.float32)
    _, got = merged_episodes(tmp_path, zeros, zeros, np.zeros(8, np.int32), 4)
    assert got == {"episode/count": 0.0}


def collectives(n, **kinds):
    """Collective operands of a step with `n` metrics."""

    def step(values):
        metrics = {f"m{i}": values[0] * i for i in range(n)}
        metrics |= {
            f"{name}{i}": kind(values[0] * i) for name, kind in kinds.items() for i in range(n)
        }
        return reduce(metrics)

    mapped = jax.shard_map(step, mesh=mesh_of(4), in_specs=P("a"), out_specs=P())
    return collective_operands(compiled_text(mapped, jnp.ones(4)))


def test_any_number_of_metrics_takes_one_collective():
    assert collectives(5) == {"all-reduce": 1}
    assert collectives(64) == {"all-reduce": 1}
    assert collectives(5, sum=Sum, last=Last) == {"all-reduce": 1}
    assert collectives(64, sum=Sum, last=Last) == {"all-reduce": 1}


def test_a_few_maxima_ride_in_the_mean_and_many_take_one_collective_more(monkeypatch):
    monkeypatch.setattr(_pack, "_MAX_IN_SLOTS", 128)
    assert collectives(5, max=Max, min=Min) == {"all-reduce": 1}
    assert collectives(16, max=Max, min=Min) == {"all-reduce": 1}
    assert collectives(17, max=Max, min=Min) == {"all-reduce": 2}
    assert collectives(64, max=Max, min=Min) == {"all-reduce": 2}


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("others", [0, 20], ids=["in slots", "by a maximum of their own"])
def test_what_lies_beside_maxima_is_the_same_to_the_last_bit(devices, others, rng, monkeypatch):
    """Also where the maxima are infinite or NaN on one device."""
    monkeypatch.setattr(_pack, "_MAX_IN_SLOTS", 128)
    values = rng.normal(size=24).astype(np.float32)
    values[3], values[20] = np.inf, -np.inf

    def step(values):
        metrics = {"max": Max(values.max()), "min": Min(values.min()), "last": Last(0.1)}
        metrics["count"] = Mean(total=3 * values.size, count=values.size)
        metrics["bad"] = Max(jnp.where(jnp.isinf(values).any(), jnp.nan, 0.0))
        metrics |= {f"more{i}": Max(values[0]) for i in range(others)}
        return reduce(metrics)

    mapped = jax.shard_map(step, mesh=mesh_of(devices), in_specs=P("a"), out_specs=P())
    got = jax.jit(mapped)(values)
    assert (got["max"], got["min"]) == (np.inf, -np.inf)
    exact = devices & (devices - 1) == 0
    assert got["last"] == np.float32(0.1)
    np.testing.assert_allclose(got["count"], 3.0, rtol=0 if exact else 2e-7)
    assert np.isnan(got["bad"])
    finite = jax.jit(mapped)(np.where(np.isinf(values), 0, values))
    assert finite["max"] == np.where(np.isinf(values), 0, values).max()
    assert finite["min"] == np.where(np.isinf(values), 0, values).min()
    assert finite["bad"] == 0.0


def test_reduce_calls_no_host():
    assert callbacks(compiled_text(lambda v: reduce({"a": v}), jnp.float32(1))) == 0


def test_double_precision_is_kept_where_jax_has_it():
    with jax.enable_x64(True):
        exact = 2**40 + 1
        assert reduce({"a": jnp.asarray(exact)})["a"] == exact


@pytest.mark.parametrize("each", [4, 8])
def test_rows_of_processes_with_unlike_data_merge_to_the_numbers_of_all(tmp_path, each, rng):
    """Three processes; one has ended no episode, and `Last` is the first one's. Eight environments
    are split into a group for each device, four are not."""
    returns = rng.normal(300.0, 50.0, 3 * each).astype(np.float32)
    lengths = np.where(np.arange(3 * each) // each == 1, 0, 9).astype(np.float32)
    memory = Memory()
    _, loggers = open_together(
        3,
        lambda group: ld.LoggingCallback(
            memory, "r", log_dir=tmp_path, group=group, scope="process"
        ),
    )
    for process, logger in reversed([*enumerate(loggers)]):
        mine = slice(each * process, each * process + each)
        steps = jnp.full(each, 10**9, jnp.int32)
        states = states_of(jnp.asarray(returns[mine]), jnp.asarray(lengths[mine]), steps)
        iteration(logger, states, {"last": Last(process + 5.0), "max": Max(float(process))})
        logger.close()
    assert [logger.failures for logger in loggers] == [(), (), ()]
    step, got = only_row(memory)
    exact = returns[lengths > 0].astype(np.float64)
    assert step == 3 * each * 10**9
    assert (got["train/last"], got["train/max"]) == (5.0, 2.0)
    assert got["episode/count"] == 2 * each
    np.testing.assert_allclose(got["episode/return"], exact.mean(), rtol=1e-6)
    np.testing.assert_allclose(got["episode/return_std"], exact.std(), rtol=1e-5)
    np.testing.assert_allclose(got["episode/return_min"], exact.min(), rtol=1e-6)


def test_maxima_keep_double_precision_where_jax_has_it():
    with jax.enable_x64(True):
        high = np.asarray([2.0**40, 2.0**40 + 1, -np.inf])
        mapped = jax.shard_map(
            lambda x: reduce({"high": Max(x[0]), "low": Min(x[0])}),
            mesh=mesh_of(3),
            in_specs=P("a"),
            out_specs=P(),
        )
        got = jax.jit(mapped)(high)
        assert (got["high"], got["low"]) == (2.0**40 + 1, -np.inf)
