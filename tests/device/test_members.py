"""`vmap` of a training: one row for all members, against NumPy."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import KEY, iteration, mesh_of, reset, step_states, training
from tests.memory import Memory
from tests.peers import open_together
from tests.program import callbacks, collective_operands, payloads
from tests.readers import event_rows, journal_row_records, journal_rows

ITERATIONS, MEMBERS, VALUES = 3, 8, 4
# Around 500, where squares around 0 would lose the deviation in float32.
DATA = np.random.default_rng(5).normal(500.0, 2.0, (MEMBERS, VALUES)).astype(np.float32)
# Of the values of a member some have ended an episode; of the first member none has.
ENDED = (np.arange(MEMBERS)[:, None] + np.arange(VALUES)) % 3 == 1
ENDED[0] = False
# float32 counts to 2**24 only.
STEPS = 2**24 + 1


def train(logger, values, ended, iterations=ITERATIONS, ends=False):
    """A member: iterations in a scan, with a row each."""

    def step(state, count):
        own = jnp.full(values.shape, STEPS, jnp.int32) * count
        states = ld.LoggingCallbackStepState(
            own, values, own, ended, values * ended, ended.astype(float)
        )
        log = {
            "plain": values[0] * count,
            "mean": ld.Mean.of(values),
            "empty": ld.Mean.of(values, where=ended),
            "sum": ld.Sum((values * 0 + 1).sum()),
            "max": ld.Max(values.max()),
            "same": 3.0,
        }
        return iteration(logger, states, log, count, state=state), None

    state, _ = jax.lax.scan(step, reset(logger), jnp.arange(1, iterations + 1))
    if ends:
        logger.on_training_end(training(state, 0, count=iterations), key=KEY)
    return values[0]


def each_member(count, values=DATA, ended=ENDED):
    """What each member would log alone, `(members,)` for each name; NaN where it has no value."""
    masked = np.ma.masked_array(values.astype(np.float64), ~ended)
    mean = masked.mean(1).filled(np.nan)
    return {
        "train/plain": values[:, 0].astype(np.float64) * count,
        "train/mean": values.mean(1, dtype=np.float64),
        "train/empty": mean,
        "train/sum": np.full(len(values), values.shape[1], float),
        "train/max": values.max(1).astype(np.float64),
        "train/same": np.full(len(values), 3.0),
        "episode/return": mean,
        "episode/return_min": masked.min(1).filled(np.nan),
        "episode/return_max": masked.max(1).filled(np.nan),
        "episode/return_std": masked.std(1).filled(np.nan),
        "episode/length": np.where(ended.any(1), 1.0, np.nan),
        "episode/count": ended.sum(1).astype(float),
    }


def band(members):
    """The row of all members."""
    row = {}
    for name, values in members.items():
        there = values[~np.isnan(values)]
        if there.size:
            row[name], row[f"{name}/member_std"] = there.mean(), there.std()
            row[f"{name}/member_min"], row[f"{name}/member_max"] = there.min(), there.max()
    return row


def check(row, expected, atol=2e-4):
    row = {name: value for name, value in row.items() if not name.startswith("time/")}
    assert sorted(row) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, rtol=2e-6, atol=atol, err_msg=name)


def check_bands(rows, members=MEMBERS, iterations=ITERATIONS):
    assert [step for step, _ in rows] == [VALUES * STEPS * i for i in range(1, iterations + 1)]
    for count, (_, row) in enumerate(rows, 1):
        check(row, band(each_member(count, DATA[:members], ENDED[:members])))


def rows_of(tmp_path, way, *data, function=train, **options):
    """The rows of a run; `way` maps what a member does over the data."""
    with ld.LoggingCallback(ld.NoOpBackend(), "r", log_dir=tmp_path, **options) as logger:
        jax.block_until_ready(way(lambda *d: function(logger, *d))(*(data or (DATA, ENDED))))
    assert logger.failures == ()
    return journal_rows(tmp_path / "r")


def train_to_end(logger, *data):
    return train(logger, *data, iterations=5, ends=True)


def vmapped(function):
    return jax.jit(jax.vmap(function))


def nested(function):
    """`vmap` of `vmap`: the members in two axes."""
    two = jax.jit(jax.vmap(jax.vmap(function)))
    return lambda *data: two(*(x.reshape(2, -1, *x.shape[1:]) for x in data))


WAYS = {
    "jit(vmap)": vmapped,
    "vmap alone": jax.vmap,
    "vmap(jit)": lambda f: jax.vmap(jax.jit(f)),
    "vmap(vmap)": nested,
    "named, not in axis_name": lambda f: jax.jit(jax.vmap(f, axis_name="seed")),
    "in_axes": lambda f: lambda x, y: jax.jit(jax.vmap(f, in_axes=1))(x.T, y.T),
}


@pytest.mark.parametrize("way", WAYS)
def test_one_row_for_all_members(tmp_path, way):
    check_bands(rows_of(tmp_path, WAYS[way]))


def over_devices(how):
    """Over four devices, by `how`."""

    def way(function):
        if how == "pmap":
            mapped = jax.pmap(function, axis_name="a", devices=jax.devices()[:4])
            return lambda *data: mapped(*(x.reshape(4, -1, *x.shape[1:]) for x in data))
        specs = {"in_specs": P("a"), "out_specs": P("a"), "check_vma": how == "shard_map"}
        return jax.jit(jax.shard_map(function, mesh=mesh_of(4), **specs))

    return way


EACH_WAY = pytest.mark.parametrize("how", ["pmap", "shard_map", "unchecked"])


@EACH_WAY
def test_members_split_over_devices(tmp_path, how):
    """`pmap(vmap(train))`: the members of all devices make one band."""
    rows = rows_of(tmp_path, lambda f: over_devices(how)(jax.vmap(f)), member_axes="a")
    check_bands(rows)


def test_a_member_a_device(tmp_path):
    def member(logger, *data):
        return train(logger, *(x.reshape(-1) for x in data))[None]

    data = DATA[:4], ENDED[:4]
    rows = rows_of(tmp_path, over_devices("pmap"), *data, function=member, member_axes=["a"])
    check_bands(rows, members=4)


@EACH_WAY
def test_data_over_devices_and_members_by_vmap(tmp_path, how):
    """A manual axis holds data unless it is named: all of a member's values count, once."""

    def way(function):
        members = jax.vmap(function, in_axes=1)
        return over_devices(how)(lambda *data: members(*data)[None])

    rows = rows_of(tmp_path, way, DATA.T, ENDED.T)
    assert [step for step, _ in rows] == [VALUES * STEPS * count for count in (1, 2, 3)]
    expected = each_member(3)
    # A scalar is averaged over devices.
    expected["train/plain"] = DATA.mean(1, dtype=np.float64) * 3
    check(rows[-1][1], band(expected))


@pytest.mark.parametrize(
    ("how", "axis_name"), [("pmap", ("a", "seed")), ("unchecked", ("a", "seed")), ("pmap", None)]
)
def test_an_anakin_layout(tmp_path, how, axis_name):
    """`pmap` of `vmap`: the vmapped axis holds data if it is named, else members."""

    def way(function):
        return over_devices(how)(jax.vmap(function, axis_name="seed"))

    step, row = rows_of(tmp_path, way, axis_name=axis_name)[0]
    row = {name: value for name, value in row.items() if name.startswith(("train/me", "train/su"))}
    if axis_name is None:
        # The members: the first of each device, and the second of each.
        members = np.stack([DATA[0::2], DATA[1::2]]).mean((1, 2), dtype=np.float64)
        assert step == STEPS * DATA.size / 2
        check(row, band({"train/mean": members, "train/sum": np.full(2, DATA.size / 2)}))
    else:
        assert step == STEPS * DATA.size
        check(row, {"train/mean": DATA.mean(dtype=np.float64), "train/sum": DATA.size})


def test_the_curve_of_one_member_is_that_of_the_training_alone(tmp_path):
    alone = rows_of(tmp_path / "alone", jax.jit, DATA[3], ENDED[3])
    same = rows_of(tmp_path / "vmapped", vmapped, DATA[3:4], ENDED[3:4])
    for (step, row), (same_step, same_row) in zip(alone, same, strict=True):
        assert step == same_step
        row = {name: value for name, value in row.items() if not name.startswith("time/")}
        check({name: same_row[name] for name in row}, row)
        assert same_row["train/mean/member_std"] == 0.0


def test_the_pace_counts_all_members(tmp_path):
    _, last = rows_of(tmp_path, vmapped)[-1]
    pace = VALUES * STEPS * MEMBERS / last["time/iteration_seconds"]
    assert last["time/steps_per_second"] == pytest.approx(pace, rel=1e-9)


def test_rows_that_are_sent_together(tmp_path):
    rows = rows_of(tmp_path, vmapped, function=train_to_end, rows_per_transfer=3)
    check_bands(rows, iterations=5)


def test_rows_that_are_sent_together_from_several_devices(tmp_path):
    """The same data on each of two devices, whose types are not checked: all of it counts."""
    specs = {"mesh": mesh_of(2), "in_specs": P(), "out_specs": P("a"), "check_vma": False}
    rows = rows_of(
        tmp_path,
        lambda f: jax.jit(jax.shard_map(jax.vmap(f), **specs)),
        function=train_to_end,
        rows_per_transfer=3,
    )
    assert [step for step, _ in rows] == [2 * VALUES * STEPS * i for i in range(1, 6)]
    assert rows[4][1]["train/sum/member_max"] == 2 * VALUES


def test_each_member_keeps_its_own_metrics(tmp_path):
    rows = rows_of(tmp_path, nested, members="each")
    assert [step for step, _ in rows] == [VALUES * STEPS * i for i in (1, 2, 3)]
    for count, (_, row) in enumerate(rows, 1):
        expected = {
            f"member_{i}/{name}": value
            for name, values in each_member(count).items()
            for i, value in enumerate(values)
            if not np.isnan(value)
        }
        check(row, expected)


def test_a_learning_rate_of_each_member_split_over_devices(tmp_path):
    def member(logger, rate):
        iteration(logger, step_states([4]), {}, opt_state={"learning_rate": rate})
        return rate

    rates = jnp.arange(1.0, 9.0) / 1000
    ((_, row),) = rows_of(
        *(tmp_path, lambda f: over_devices("shard_map")(jax.vmap(f)), rates),
        **{"function": member, "members": "each", "member_axes": "a"},
    )
    found = [row[f"member_{i}/train/learning_rate"] for i in range(8)]
    np.testing.assert_allclose(found, rates, rtol=1e-7)


def until(logger, end, value):
    """A member that finishes after `end` iterations, in a `while_loop` that is batched."""

    def step(carry):
        state, count = carry
        log = {"value": value, "n": ld.Sum(count)}
        return iteration(logger, step_states([5]), log, count, state=state), count + 1

    start = reset(logger), jnp.zeros((), jnp.int32)
    state, count = jax.lax.while_loop(lambda carry: carry[1] < end, step, start)
    logger.on_training_end(training(state, 0, count=count), key=KEY)
    return count


@pytest.mark.parametrize("log_interval", [1, 2])
def test_a_member_that_has_finished_is_absent(tmp_path, log_interval):
    """JAX computes the iteration after a member's last one, too, and then that again and again."""
    ends, values = np.array([2, 6, 4]), np.array([1.0, 10.0, 100.0])
    rows = rows_of(tmp_path, vmapped, ends, values, function=until, log_interval=log_interval)
    logged = range(0, 6, log_interval)
    assert [row["train/n"] for _, row in rows] == [*logged]
    for i, (_, row) in zip(logged, rows, strict=True):
        there = values[i <= ends]
        assert row["train/value"] == pytest.approx(there.mean(), rel=1e-6)
        assert row["train/value/member_max"] == there.max()


def test_rows_that_are_sent_together_by_members_that_finish(tmp_path):
    ends = np.array([1, 8, 4])
    options = {"function": until, "rows_per_transfer": 3, "members": "each"}
    rows = rows_of(tmp_path, vmapped, ends, np.arange(3.0), **options)
    assert [row["member_1/train/n"] for _, row in rows] == [*range(8)]
    for i, (_, row) in enumerate(rows):
        there = [member for member in range(3) if f"member_{member}/train/n" in row]
        assert there == [member for member in range(3) if i <= ends[member]]


def test_a_batched_cond_logs_once_with_all_members(tmp_path):
    def member(logger, x):
        def log(x):
            iteration(logger, step_states([1]), {"x": x})
            return x

        return jax.lax.cond(x > 1, log, lambda x: x, x)

    ((_, row),) = rows_of(tmp_path, vmapped, jnp.arange(4.0), function=member)
    assert row["train/x"] == 1.5 and row["train/x/member_min"] == 0.0


@pytest.mark.parametrize("members", [1, 64, 1024])
def test_a_band_is_one_callback_for_any_number_of_members(tmp_path, monkeypatch, members):
    found = payloads(monkeypatch)
    with ld.LoggingCallback(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:

        def member(x):
            iteration(logger, step_states([1]), {"x": x, "max": ld.Max(x)})
            return x

        # Data over two devices, members by vmap.
        over_two = jax.shard_map(
            jax.vmap(member), mesh=mesh_of(2), in_specs=P("a"), out_specs=P("a")
        )
        data = jnp.arange(2.0 * members)
        compiled = jax.jit(over_two).lower(data).compile()
        text = compiled.as_text() or ""
        assert callbacks(text) == 1
        # Of two devices, whose maxima have slots of their own in the one mean.
        assert collective_operands(text) == {"all-reduce": 1}
        jax.block_until_ready(compiled(data))
    assert len({payload.nbytes for payload in found}) == len(found) == 1
    assert found[0].size < 70
    ((_, row),) = journal_rows(tmp_path / "r")
    expected = np.arange(2.0 * members).reshape(2, members)
    check(
        {name: value for name, value in row.items() if name.startswith("train/")},
        band({"train/x": expected.mean(0), "train/max": expected.max(0)}),
    )


def test_members_kept_apart_leave_in_payloads_of_64_kib(tmp_path, monkeypatch):
    def member(logger, x):
        iteration(logger, step_states([1]), {f"m{i}": x + i for i in range(10)})
        return x

    found = payloads(monkeypatch)
    values = jnp.arange(600.0)
    ((_, row),) = rows_of(tmp_path, vmapped, values, function=member, members="each")
    sizes = [payload.nbytes for payload in found]
    assert len(sizes) == 2 and max(sizes) <= 64 * 1024
    assert [row[f"member_{i}/train/m9"] for i in range(600)] == [*np.arange(9.0, 609.0)]


class Shares(ld.AbstractPartial):
    """A vector: the share of each action."""

    counts: jax.Array

    def sums(self, maxima, first):
        return (self.counts,)

    @staticmethod
    def finish(sums, maxima, numpy):
        total = sums[0].sum(axis=0)
        return ld.Finished({"": sums[0] / numpy.where(total == 0, 1, total)}, total)


def test_a_vector_is_averaged_over_members(tmp_path):
    def member(logger, counts):
        iteration(logger, step_states([1]), {"a": Shares(counts)})
        return counts

    counts = jnp.asarray([[1.0, 3.0], [2.0, 2.0], [5.0, 0.0]])
    rows = {}
    for members in ("band", "each"):
        rows_of(tmp_path / members, vmapped, counts, function=member, members=members)
        (rows[members],) = journal_row_records(tmp_path / members / "r")
    shares = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(rows["band"].vectors["train/a"], shares.mean(0), rtol=1e-6)
    for i in range(3):
        np.testing.assert_array_equal(rows["each"].vectors[f"member_{i}/train/a"], shares[i])


def test_members_under_grad_x64_and_strict_promotion(tmp_path):
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        ld.LoggingCallback(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger,
    ):

        def loss(w, x):
            value = w * x
            iteration(logger, step_states([1]), {"loss": value, "mean": ld.Mean.of(value)})
            return value

        grads = jax.jit(jax.vmap(jax.value_and_grad(loss)))(jnp.arange(1.0, 4.0), jnp.arange(3.0))
        outer = jax.grad(lambda w, x: jax.vmap(loss)(w, x).sum())(
            jnp.arange(1.0, 4.0), jnp.arange(3.0)
        )
    np.testing.assert_allclose(grads[1], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(outer, [0.0, 1.0, 2.0])
    for _, row in journal_rows(tmp_path / "r"):
        assert row["train/loss"] == 8 / 3 and row["train/mean/member_max"] == 6.0


@pytest.mark.parametrize("way", [vmapped, jax.vmap])
def test_a_value_that_no_member_has_is_left_out_under_debug_nans(tmp_path, way):
    with jax.debug_nans(True):
        rows = rows_of(tmp_path, way, DATA[:1], ENDED[:1])
    assert len(rows) == ITERATIONS and "train/empty" not in rows[0][1]


def test_the_total_of_a_training_is_that_of_a_member(tmp_path):
    memory = Memory()
    with ld.LoggingCallback(memory, log_dir=tmp_path) as logger:

        def member(total):
            context = training(ld.EmptyCallbackState(), total)
            logger.on_training_start(context, key=KEY)
            return total

        jax.block_until_ready(jax.jit(jax.vmap(member))(jnp.asarray([3000, 7000, 5000])))
    assert [call for call in memory.calls if call[0] == "start"] == [("start", 7000, 0)]


@pytest.mark.parametrize("total", [1000, jnp.asarray(1000)])
def test_members_of_several_processes_make_one_band(tmp_path, total):
    """Each process has members of its own; the step is still that of one."""
    memory = Memory()
    _, loggers = open_together(
        2,
        lambda group: ld.LoggingCallback(
            memory, "r", log_dir=tmp_path, group=group, scope="process"
        ),
    )
    for logger, mine in reversed([*zip(loggers, (slice(0, 3), slice(3, 8)), strict=True)]):

        def member(*data, logger=logger):
            context = training(ld.EmptyCallbackState(), total, policy=data[0])
            logger.on_training_start(context, key=KEY)
            return train(logger, *data)

        jax.block_until_ready(jax.jit(jax.vmap(member))(DATA[mine], ENDED[mine]))
        logger.close()
    assert [logger.failures for logger in loggers] == [(), ()]
    check_bands(journal_rows(tmp_path / "r"))
    assert ("start", 1000, 0) in memory.calls
    last = journal_row_records(tmp_path / "r")[-1].metrics
    pace = VALUES * STEPS * MEMBERS / last["time/iteration_seconds"]
    assert last["time/steps_per_second"] == pytest.approx(pace, rel=1e-9)


def test_members_of_several_processes_cannot_be_kept_apart(tmp_path):
    _, loggers = open_together(
        2,
        lambda group: ld.LoggingCallback(
            ld.NoOpBackend(), "r", log_dir=tmp_path, group=group, scope="process", members="each"
        ),
    )
    for logger in reversed(loggers):
        with pytest.raises(ValueError, match='`members` is "each", but the rows of 2 processes'):
            iteration(logger, step_states([1]), {})
        logger.close()


def test_tensorboard_has_the_rows_and_their_bands(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with ld.LoggingCallback(ld.TensorBoardBackend(tmp_path), "r", log_dir=tmp_path) as logger:
        jax.block_until_ready(jax.jit(jax.vmap(lambda *d: train(logger, *d)))(DATA, ENDED))
    check_bands(event_rows(tmp_path / "r"))
    events = EventAccumulator(str(tmp_path / "r")).Reload()
    layout = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert b"train/mean/member_min" in layout and b"train/plain/member_max" in layout


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"members": "all"}, ValueError, "`members` must be 'band' or 'each', got 'all'"),
        ({"member_axes": 3}, TypeError, "`member_axes` must be the name of a mesh axis"),
        ({"member_axes": "a", "axis_name": ("b", "a")}, ValueError, "both name 'a'"),
    ],
)
def test_arguments_that_are_none_are_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path, **options)


def test_a_member_axis_that_is_not_in_scope_is_refused(tmp_path):
    with ld.LoggingCallback(ld.NoOpBackend(), log_dir=tmp_path, member_axes="b") as logger:
        with pytest.raises(ValueError, match="`member_axes` names 'b', which is not in scope"):
            iteration(logger, step_states([1]), {})


def test_emit_in_a_scan_logs_a_band_of_the_members(tmp_path):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:

        def member(value):
            def step(carry, i):
                logger.emit({"eval": {"x": value * i, "n": ld.Sum(i)}}, step=10 * i)
                return carry, None

            return jax.lax.scan(step, value, jnp.arange(1, ITERATIONS + 1))[0]

        jax.block_until_ready(jax.jit(jax.vmap(member))(DATA[:, 0]))
    rows = journal_rows(tmp_path / "r")
    assert [step for step, _ in rows] == [10, 20, 30]
    for i, (_, row) in enumerate(rows, 1):
        values = DATA[:, 0].astype(np.float64) * i
        wanted = [values.mean(), values.min(), values.max(), values.std(), i]
        ends = ("", "/member_min", "/member_max", "/member_std")
        found = [*(row[f"eval/x{end}"] for end in ends), row["eval/n"]]
        np.testing.assert_allclose(found, wanted, rtol=2e-6)
