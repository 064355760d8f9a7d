"""What `reduce` gives: a mapping of scalars that is one array to JAX, and to the logger."""

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import mesh_of
from tests.memory import Memory
from tests.peers import writer_and_idle
from tests.program import compiled_ahead, python_lines
from tests.readers import journal_rows


def step(values) -> Any:
    return ld.reduce({"a": values.sum(), "b": {"c": ld.Max(values.max()), "d": ld.Sum(2)}})


def test_it_is_a_mapping_of_scalars_in_and_out_of_compiled_code():
    def both(values):
        metrics = step(values)
        return metrics, metrics["a"] + metrics["b/c"], {**metrics, "more": 1.0}

    metrics, total, more = jax.jit(both)(jnp.arange(4.0))
    assert dict(metrics) == {"a": 6.0, "b/c": 3.0, "b/d": 2.0}
    assert (len(metrics), "a" in metrics, "x" in metrics, total) == (3, True, False, 9.0)
    assert [value.shape for value in metrics.values()] == [()] * 3
    assert more == {**metrics, "more": 1.0}
    with pytest.raises(KeyError, match="x"):
        metrics["x"]
    assert dict(ld.reduce({})) == {}


def test_to_jax_it_is_one_array_however_many_metrics():
    metrics = jax.jit(lambda x: ld.reduce({f"m{i}": x * i for i in range(64)}))(jnp.ones(()))
    (leaf,) = jax.tree.leaves(metrics)
    assert leaf.shape == (64,)
    # As the steps of a scan, with an axis in front.
    _, rows = jax.lax.scan(lambda c, x: (c, step(x)), None, jnp.ones((5, 4)))
    assert rows["a"].tolist() == [4.0] * 5
    assert jax.tree.map(lambda leaf: leaf[0], rows)["b/c"] == 1.0


def test_a_logger_takes_it_as_it_is_and_beside_others(tmp_path):
    mapped = jax.jit(jax.shard_map(step, mesh=mesh_of(4), in_specs=P("a"), out_specs=P()))
    memory = Memory()
    with ld.Logger(memory, "r", log_dir=tmp_path) as logger:
        for count in range(40):
            metrics = mapped(jnp.arange(8.0) * count)
            logger.log(metrics, count)
            logger.log({"train": metrics, "lr": 0.5, "x": jnp.float32(3.0)}, 100 + count)
            jax.block_until_ready(metrics)
    plain = [row for at, row in memory.rows if at < 100]
    beside = [row for at, row in memory.rows if at >= 100]
    assert plain == [{"a": 7.0 * k, "b/c": 7.0 * k, "b/d": 8.0} for k in range(40)]
    assert beside == [
        {"lr": 0.5, "x": 3.0, "train/a": 7.0 * k, "train/b/c": 7.0 * k, "train/b/d": 8.0}
        for k in range(40)
    ]
    assert not logger.failures


def test_it_is_not_copied_and_only_its_first_row_is_looked_at(tmp_path, monkeypatch):
    def lines(count):
        metrics = jax.jit(lambda x: ld.reduce({f"m{i}": x * i for i in range(count)}))
        rows = [metrics(jnp.float32(step)) for step in range(3)]
        compiled = compiled_ahead(monkeypatch)
        pair = writer_and_idle(
            lambda group: ld.Logger(
                Memory(), str(count), log_dir=tmp_path, group=group, scope="global"
            )
        )
        found = [python_lines(logger.log, row, 0) for logger in pair for row in rows]
        for logger in pair:
            logger.close()
        assert not compiled
        return np.array(found)[[1, 2, 4, 5]]

    assert np.abs(lines(40) - lines(4)).max() < 9


def test_what_is_wrong_with_it_is_said(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path, strict=True) as logger:
        metrics = step(jnp.arange(4.0))
        with pytest.raises(ValueError, match="'train/a' twice"):
            logger.log({"train": metrics, "train/a": 1.0}, 0)
        with pytest.raises(ValueError, match="must be a scalar"):
            logger.log(jax.tree.map(lambda leaf: jnp.ones((3, leaf.size)), metrics), 0)
        with pytest.raises(ValueError, match="empty name"):
            logger.log({"": metrics}, 0)
        logger.log(metrics, 1)
        logger.flush()
        with pytest.raises(TypeError, match="'a' belongs to a trace.*Return the value"):
            jax.jit(lambda values: logger.log(step(values), 2))(jnp.arange(4.0))
        with pytest.raises(TypeError, match="'a' belongs to a trace.*Return the value"):
            jax.jit(lambda metrics: logger.log(metrics, 2))(metrics)
        jax.tree.leaves(metrics)[0].delete()
        with pytest.raises(ValueError, match="donated"):
            logger.log(jax.tree.map(lambda leaf: leaf, metrics), 2)


def test_a_name_that_it_shares_with_what_is_beside_it_is_told_on_every_process(tmp_path):
    metrics, short = step(jnp.arange(4.0)), ld.reduce({"c": 1.0})
    pair = writer_and_idle(
        lambda group: ld.Logger(
            Memory(), "r", log_dir=tmp_path, group=group, scope="global", strict=True
        )
    )
    for logger in pair:
        for other in ({"train/b/c": 1.0}, {"train/b": {"c": jnp.float32(1)}}, {"train/b": short}):
            with pytest.raises(ValueError, match="'train/b/c' twice"):
                logger.log({"train": metrics, **other}, 0)
        logger.log({"train": metrics, "eval": short, "c": 1.0}, 0)
        logger.close()


def episodes(done, loss=1.0):
    """The mean return of the episodes that ended, which may be none."""
    returns = jnp.arange(float(done.shape[0]))
    return ld.reduce({"return": ld.Mean.of(returns, where=done), "loss": loss, "n": ld.Sum(1)})


NONE, SOME = np.zeros(4, bool), np.arange(4) == 2
FORMS = {
    "eager": episodes,
    "jit": jax.jit(episodes),
    "shard_map": lambda done, loss=1.0: jax.jit(
        jax.shard_map(episodes, mesh=mesh_of(2), in_specs=(P("a"), P()), out_specs=P())
    )(done, jnp.float32(loss)),
    "device_get": lambda *args: jax.device_get(jax.jit(episodes)(*args)),
    "pickled": lambda *args: pickle.loads(pickle.dumps(jax.jit(episodes)(*args))),
    "scan": lambda done, loss=1.0: jax.tree.map(
        lambda leaf: leaf[1],
        jax.lax.scan(lambda c, d: (c, episodes(d, loss)), 0, jnp.stack([SOME, done]))[1],
    ),
    "disable_jit": lambda *args: without_jit(episodes, *args),
}


def without_jit(function, *args):
    with jax.disable_jit():
        return function(*args)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug_nans"])
@pytest.mark.parametrize("form", FORMS)
def test_a_mean_of_nothing_is_no_value(tmp_path, form, debug):
    reduced = FORMS[form]
    with (
        jax.debug_nans(debug),
        ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger,
    ):
        for step, done in enumerate([NONE, SOME, NONE]):
            metrics = reduced(done)
            assert len(jax.tree.leaves(metrics)) == 1
            assert np.isfinite(jax.tree.leaves(metrics)[0]).all()
            assert metrics["loss"] == 1.0 and np.isnan(metrics["return"]) == (not done.any())
            logger.log(metrics, step)
            logger.log({"a": {"b": metrics}, "lr": 0.5}, 10 + step)
        assert logger.failures == ()
        with jax.debug_nans(False):
            bad = reduced(NONE, np.nan)
        logger.log(bad, 3)
        logger.flush()
    (failure,) = logger.failures
    assert failure.message == "'loss' is nan at step 3, the first value that is not finite"
    rows = dict(journal_rows(tmp_path / "r"))
    count = 2.0 if form == "shard_map" else 1.0
    mean = 0.0 if form == "shard_map" else 2.0
    absent = {"loss": 1.0, "n": count}
    assert rows[0] == rows[2] == absent and rows[1] == {**absent, "return": mean}
    assert list(rows[3]) == ["loss", "n"] and np.isnan(rows[3]["loss"])
    nested = {"lr": 0.5, "a/b/loss": 1.0, "a/b/n": count}
    assert rows[10] == rows[12] == nested and rows[11] == {**nested, "a/b/return": mean}


def test_what_may_be_absent_is_averaged_over_processes_that_have_it(tmp_path):
    writer, peer = writer_and_idle(
        lambda group: ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="process")
    )
    for step, (mine, theirs) in enumerate([(SOME, NONE), (NONE, SOME), (NONE, NONE)]):
        writer.log(episodes(mine, 1.0), step)
        peer.log(episodes(theirs, 3.0), step)
    peer.close()
    writer.close()
    assert not writer.failures
    assert journal_rows(writer.run_dir) == [
        (0, {"loss": 2.0, "n": 1.0, "return": 2.0}),
        (1, {"loss": 2.0, "n": 1.0, "return": 2.0}),
        (2, {"loss": 2.0, "n": 1.0}),
    ]


class Root(ld.AbstractPartial):
    """Undefined without values, whatever module computes it."""

    total: Any
    count: Any

    def sums(self, maxima, first):
        return (self.total, self.count)

    @staticmethod
    def finish(sums, maxima, numpy):
        return ld.Finished({"": numpy.sqrt(sums[0] / sums[1])}, sums[1])


def test_a_metric_of_ones_own_without_a_value_is_none(tmp_path):
    with jax.debug_nans(True), ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        for step, count in enumerate([0.0, 2.0]):
            partial = {"root": Root(jnp.float32(8 * step), jnp.float32(count)), "x": 1.0}
            logger.log(jax.jit(ld.reduce)(partial), step)
            logger.log(ld.reduce(partial), 10 + step)
    assert logger.failures == ()
    rows = [(0, {"x": 1.0}), (1, {"x": 1.0, "root": 2.0})]
    assert journal_rows(tmp_path / "r") == [
        row for step, values in rows for row in ((step, values), (10 + step, values))
    ]
