"""Partials that `Logger.log` is given: of values on the host and of arrays, in one process and in
several."""

import functools
import threading
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lerax_dist as ld
from tests.memory import Memory
from tests.peers import open_together
from tests.readers import journal_records, journal_row_records, journal_rows

LIMIT = 20.0


class Shares(ld.AbstractPartial):
    counts: Any

    def sums(self, maxima, first):
        return (self.counts,)

    @staticmethod
    def finish(sums, maxima, numpy):
        (counts,) = sums
        return ld.Finished({"": counts / counts.sum(axis=0)}, counts.sum(axis=0))


class Spread(ld.AbstractPartial):
    """A number with suffixes; its sum is taken around the point of its maximum."""

    highest: Any
    below: Any

    @staticmethod
    def shift(sums, maxima, merged, numpy):
        return [sums[0] + merged[0] - maxima[0]]

    def maxima(self):
        return (self.highest,)

    def sums(self, maxima, first):
        return (self.below,)

    @staticmethod
    def finish(sums, maxima, numpy):
        return ld.Finished({"_top": maxima[0], "_below": sums[0]}, 1)


def logged(tmp_path, *rows, count=1, scope=None):
    """The rows of a run, given those of each process, and what it says has failed."""
    _, loggers = open_together(
        count, lambda group: ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope=scope)
    )
    for step, row in enumerate(rows):
        for index, logger in enumerate(loggers):
            logger.log(row(index), step)
    for logger in reversed(loggers):
        logger.close(timeout=LIMIT)
    return journal_rows(tmp_path / "r"), [each.message for each in loggers[0].failures]


def of_host(index):
    return {
        "a": {"mean": ld.Mean.of(np.array([1.0, 4.0])), "weighted": ld.Mean(6, 2)},
        "sum": ld.Sum(2**53 - 1 - index),
        "max": ld.Max(np.float32(0.1)),
        "min": ld.Min(True),
        "last": ld.Last(0.1),
        "plain": 1,
        "array": jnp.asarray(2.0),
    }


def test_one_process_logs_partials_of_its_host_to_the_last_bit(tmp_path):
    ((_, row),), said = logged(tmp_path, of_host)
    assert said == []
    assert row == {
        "a/mean": 2.5, "a/weighted": 3.0, "sum": 2.0**53 - 1, "max": float(np.float32(0.1)),
        "min": 1.0, "last": 0.1, "plain": 1.0, "array": 2.0,
    }  # fmt: skip


def test_values_of_the_host_cost_no_device_any_work(tmp_path):
    values = {"numbers": np.array([1.0, 2.0]), "array": np.arange(6.0).reshape(2, 3), "one": 3}
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger, jax.transfer_guard("disallow"):
        for step in range(3):
            row = {name: ld.Mean.of(value) for name, value in values.items()}
            row["masked"] = ld.Mean.of(values["array"], where=values["array"] > 3)
            logger.log(row | {"last": ld.Last(step), "min": ld.Min(step)}, step)
    rows = [row for _, row in journal_rows(tmp_path / "r")]
    assert rows == [
        {"numbers": 1.5, "array": 2.5, "one": 3.0, "masked": 4.5, "last": step, "min": step}
        for step in range(3)
    ]


@pytest.mark.parametrize("disable", [False, True])
def test_arrays_may_be_donated_once_they_are_logged(tmp_path, disable):
    @functools.partial(jax.jit, donate_argnums=0)
    def step_of(x):
        return x + 1.0

    x = jnp.float32(1.0)
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger, jax.disable_jit(disable):
        for step in range(5):
            logger.log({"x": ld.Sum(x), "min": ld.Min(x), "shares": Shares(x[None])}, step)
            x = step_of(x)
    assert logger.failures == ()
    for step, row in journal_rows(tmp_path / "r"):
        assert row == {"x": step + 1.0, "min": step + 1.0}


def test_a_mean_of_nothing_is_no_value(tmp_path):
    rows, said = logged(
        tmp_path, lambda _: {"x": ld.Mean.of([]), "y": ld.Mean.of([1.0], where=[0])}
    )
    assert rows == [(0, {})] and said == []


def test_partials_of_processes_are_merged_and_plain_values_are_those_of_process_0(tmp_path):
    def row(index):
        counts = np.array([[1.0, 0.0], [0.0, 3.0], [4.0, 0.0]])[index]
        spread = Spread(10.0 + index, 1.0)
        return {"shares": Shares(counts), "s": spread, "plain": 0.5} | {
            "last": ld.Last(jnp.float32(index + 0.1)), "mean": ld.Mean.of(np.full(index, index))
        }  # fmt: skip

    ((_, got),), said = logged(tmp_path, row, count=3, scope="global")
    assert said == []
    expected = {"s_top": 12.0, "s_below": 6.0, "plain": 0.5, "last": float(np.float32(0.1))}
    assert got == expected | {"mean": 5 / 3}
    (record,) = journal_row_records(tmp_path / "r")
    np.testing.assert_array_equal(record.vectors["shares"], [5 / 8, 3 / 8])


def test_where_each_process_runs_a_program_plain_values_are_means_as_before(tmp_path):
    rows, said = logged(
        tmp_path,
        lambda index: {"plain": float(index), "sum": ld.Sum(index + 1)},
        lambda index: {"plain": float(index)},
        count=2,
        scope="process",
    )
    assert rows == [(0, {"plain": 0.5, "sum": 3.0}), (1, {"plain": 0.5})]
    assert said == []


def test_partials_that_do_not_fit_are_left_out_and_said(tmp_path):
    rows, (said,) = logged(
        tmp_path,
        lambda index: {"x": ld.Sum(1) if index else ld.Mean(1, 1)},
        count=2,
        scope="global",
    )
    assert rows == [(0, {"x": 1.0})]
    assert "partials of other types than process 0 (x); its values were left out" in said


def test_a_row_with_partials_that_no_other_process_has_waits_but_not_for_ever(tmp_path):
    _, (writer, peer) = open_together(
        2,
        lambda group: ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="global"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ld.LoggingWarning)
        writer.log({"x": 0.0}, 0)
        writer.flush(LIMIT)
        writer.log({"x": ld.Sum(1)}, 1)
        with pytest.raises(TimeoutError):
            writer.flush(0.2)
        writer.close(timeout=2.0)
    assert journal_rows(tmp_path / "r") == [(0, {"x": 0.0}), (1, {"x": 1.0})]
    (failure,) = writer.failures
    assert "did not send row 1 before `close(timeout=...)` expired" in failure.message
    assert journal_records(tmp_path / "r")[-1].kind == "close"
    peer.close(timeout=LIMIT)
    assert peer.failures == ()


def test_a_process_whose_values_are_only_compared_does_not_wait_for_process_0(tmp_path):
    world, (writer, peer) = open_together(
        2,
        lambda group: ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="global"),
    )
    mail = world.mail[1]
    mail.room.clear()
    peer.log({"x": 1.0}, 0)
    peer.flush(LIMIT)
    begin = time.monotonic()
    peer.close()
    assert time.monotonic() - begin < LIMIT / 2
    assert peer.failures == () and not any("sample" in text for text in mail.sent)
    writer.close(timeout=LIMIT)


def test_a_process_that_only_compares_copies_no_row_and_makes_no_thread_busy(tmp_path):
    _, (writer, peer) = open_together(
        2,
        lambda group: ld.Logger(Memory(), "r", log_dir=tmp_path, group=group, scope="global"),
    )
    copies = []
    values = {f"m{i}": jnp.float32(i) for i in range(10)}
    before = threading.active_count()
    for step in range(200):
        for logger in (writer, peer):
            logger.log(values, step)
        copies.append(peer._run._queue.usage()[0])
    assert copies[-1] == 0  # no row
    assert threading.active_count() == before
    for logger in (peer, writer):
        logger.close(timeout=LIMIT)
    assert writer.failures == ()


@pytest.mark.parametrize(
    ("metrics", "error", "text"),
    [
        ({"a/b": 1.0, "a": {"b": ld.Sum(1)}}, ValueError, "has the name 'a/b' twice"),
        ({"a/b": ld.Sum(1), "a": {"b": ld.Sum(1)}}, ValueError, "has the name 'a/b' twice"),
        ({"a/3": 1.0, "a": {3: ld.Sum(1)}}, ValueError, "has the name 'a/3' twice"),
        ({"a": {"": ld.Sum(1)}}, ValueError, "empty name"),
    ],
)
def test_names_are_checked_as_those_of_other_metrics(tmp_path, metrics, error, text):
    with ld.Logger(Memory(), "r", log_dir=tmp_path, strict=True) as logger:
        with pytest.raises(error, match=text):
            logger.log(metrics, 0)


def test_a_partial_of_a_trace_is_refused(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        with pytest.raises(TypeError, match="'x' belongs to a trace"):
            jax.jit(lambda x: logger.log({"x": ld.Sum(x)}, 0))(1.0)
