"""The state of a run: into a checkpoint, out of it again, and the run resumes from there."""

import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import lerax_dist as ld
from tests.memory import Memory
from tests.readers import (
    current_rows,
    journal_records,
    kept_by_jsonl,
    shown_by_tensorboard,
    start_step_of,
)


def through_equinox(state: ld.RunState, folder: Path) -> ld.RunState:
    eqx.tree_serialise_leaves(folder / "state.eqx", state)
    return eqx.tree_deserialise_leaves(folder / "state.eqx", ld.RunState.empty())


def through_orbax(state: ld.RunState, folder: Path) -> ld.RunState:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder / "state", ld.RunState.empty())


def through_devices(state: ld.RunState, folder: Path) -> ld.RunState:
    return jax.tree.map(jnp.asarray, state)


def log(log_dir: Path, steps: Any, name: str | None = "r", *, failed: bool = True, **options: Any):
    """One incarnation, which by default ends with an error, and its state then."""
    logger = ld.Logger(Memory(), name, log_dir=log_dir, **options)
    for step in steps:
        logger.log({"x": float(step)}, step)
    state = logger.state()
    logger.close(failed=failed)
    return logger, state


def shown(run_dir: Path) -> list[int]:
    return [row.step for row in current_rows(journal_records(run_dir))]


NAME = "Über/läufe 1"


def known_state(log_dir: Path, *, rows: bool) -> ld.RunState:
    """A state of a run, which knows where to go on or leaves it to the first row."""
    steps = [2**40 + 4]
    _, state = log(log_dir, steps, NAME)
    if not rows:
        _, state = log(log_dir, [], NAME)
    assert start_step_of(state) == (2**40 + 5 if rows else None)
    return state


@pytest.mark.parametrize("through", [through_equinox, through_orbax, through_devices])
@pytest.mark.parametrize("rows", [True, False])
def test_a_state_comes_out_of_a_checkpoint_as_it_went_in(tmp_path, through, rows):
    before = known_state(tmp_path / "logs", rows=rows)
    after = through(before, tmp_path)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)
    logger, _ = log(tmp_path / "logs", [7], None, state=after)
    assert (logger.name, logger.incarnation) == (NAME, int(before.incarnation) + 1)
    assert logger.run_id.encode() == before.run_id.tobytes().rstrip(b"\0")
    events = [r.body for r in journal_records(logger.run_dir) if getattr(r, "kind", "") == "resume"]
    assert events[-1]["start_step"] == (2**40 + 5 if rows else 7)


def test_the_arrays_of_a_state_have_the_same_shapes_for_every_run(tmp_path):
    def shapes(state):
        return [(leaf.shape, leaf.dtype, type(leaf)) for leaf in jax.tree.leaves(state)]

    assert shapes(known_state(tmp_path, rows=True)) == shapes(ld.RunState.empty())
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(ld.RunState.empty())) < 1000


def test_no_run_is_no_state(tmp_path):
    logger, _ = log(tmp_path, range(3), state=ld.RunState.empty(), resume="never")
    assert (logger.name, logger.incarnation) == ("r", 1)
    logger, _ = log(tmp_path, range(3), state=None, resume="never")
    assert (logger.name, logger.incarnation) == ("r_2", 1)


def test_what_a_state_cannot_be_is_said(tmp_path):
    with pytest.raises(TypeError, match="`state` must be a `RunState`, got a dict. Restore"):
        log(tmp_path, [], state={"name": np.zeros(512)})
    odd = eqx.tree_at(
        lambda s: s.run_id, known_state(tmp_path / "a", rows=True), np.full(64, 200, np.uint8)
    )
    with pytest.raises(ValueError, match="`state.run_id` is not UTF-8"):
        log(tmp_path, [], state=odd)
    long = "/".join(["n" * 127] * 4 + ["n"])
    with ld.Logger(Memory(), long, log_dir=tmp_path) as logger:
        with pytest.raises(
            ValueError, match="`name` has 513 bytes in UTF-8, but a `RunState` has room for 503"
        ):
            logger.state()


def test_a_run_goes_on_after_the_checkpoint_whatever_came_after_it(tmp_path):
    logger = ld.Logger(Memory(), "r", log_dir=tmp_path)
    states = []
    for step in range(0, 60, 10):
        logger.log({"x": 0.0}, step)
        states.append(logger.state())
    logger.close(failed=True)
    # The batch has another size now, so that none of the steps is one of before.
    second, _ = log(tmp_path, [36, 46, 56], "another name", state=states[3])
    assert (second.name, second.run_id, second.incarnation) == ("r", logger.run_id, 2)
    assert shown(tmp_path / "r") == [0, 10, 20, 30, 36, 46, 56]
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_an_explicit_start_step_goes_before_that_of_the_state(tmp_path):
    _, state = log(tmp_path, range(5))
    log(tmp_path, [9], state=state, start_step=2)
    assert shown(tmp_path / "r") == [0, 1, 9]


def test_a_state_is_of_what_is_current_not_of_what_was_superseded(tmp_path):
    _, first = log(tmp_path, range(5))
    assert start_step_of(first) == 5
    log(tmp_path, range(5, 20))
    logger = ld.Logger(Memory(), log_dir=tmp_path, state=first)
    # No row yet: its step is the `start_step`, not the 20 of the incarnation before.
    assert start_step_of(logger.state()) == 5
    logger.log({"x": 0.0}, 5)
    assert start_step_of(logger.state()) == 6
    logger.close()
    last = logger.state()
    assert start_step_of(last) == 6
    assert (int(first.incarnation), int(last.incarnation)) == (1, 3)
    np.testing.assert_array_equal(first.run_id, last.run_id)


def test_a_state_before_the_first_row_is_the_start_or_leaves_it_to_the_first_row(tmp_path):
    _, state = log(tmp_path, [])
    assert start_step_of(state) == 0
    log(tmp_path, range(5))
    # Continued without saying where: only the first row tells.
    _, state = log(tmp_path, [])
    assert start_step_of(state) is None
    log(tmp_path, [3], state=state)
    assert shown(tmp_path / "r") == [0, 1, 2, 3]


def test_a_finished_run_is_continued_by_its_state(tmp_path):
    _, state = log(tmp_path, range(3), failed=False)
    second, _ = log(tmp_path, range(3, 6), state=state, failed=False)
    assert (second.name, second.incarnation) == ("r", 2)
    assert shown(tmp_path / "r") == [*range(6)]


def test_a_batch_job_finds_its_run_by_the_state_whatever_its_name_was_made_from(
    tmp_path, monkeypatch
):
    first, state = log(tmp_path, range(3), None)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    other, _ = log(tmp_path, range(3), None)
    again, _ = log(tmp_path, range(3, 5), None, state=state)
    assert (other.name, other.incarnation) == ("4711", 1)
    assert (again.name, again.run_id, again.incarnation) == (first.name, first.run_id, 2)


def test_a_run_whose_folder_is_gone_goes_on_in_a_new_one_under_its_name_and_id(tmp_path):
    first, state = log(tmp_path, range(3))
    shutil.rmtree(tmp_path / "r")
    with pytest.warns(ld.LoggingWarning, match="is not in .* use a folder that all hosts"):
        second, _ = log(tmp_path, range(3, 5), None, state=state)
    assert (second.name, second.run_id, second.incarnation) == ("r", first.run_id, 2)
    assert shown(tmp_path / "r") == [3, 4]
    shutil.rmtree(tmp_path / "r")
    with pytest.raises(ValueError, match="`resume` is \"must\", but the run 'r' of `state` is not"):
        log(tmp_path, [], state=state, resume="must")
    assert list(tmp_path.iterdir()) == []


def test_another_run_of_that_name_is_left_alone(tmp_path):
    _, state = log(tmp_path / "one", range(3))
    log(tmp_path / "two", range(3))
    before = (tmp_path / "two" / "r" / "journal.jsonl").read_bytes()
    with pytest.raises(ValueError, match="but .*two/r holds one with the id"):
        log(tmp_path / "two", range(3), state=state)
    assert (tmp_path / "two" / "r" / "journal.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="conflicts with `state`, which continues run 'r'"):
        log(tmp_path / "one", range(3), state=state, resume="never")


def train(logger: ld.Logger, epochs: range, value: float) -> list[ld.RunState]:
    """Epochs of ten steps with an evaluation each, which counts epochs; the states after them."""
    states = []
    for epoch in epochs:
        for step in range(10 * epoch, 10 * epoch + 10):
            logger.log({"train/loss": value, "epoch": float(epoch)}, step)
        logger.log({"eval/acc": value, "epoch": float(epoch)}, epoch)
        states.append(logger.state())
    return states


def test_a_state_hides_what_came_after_it_whatever_its_axis_in_every_backend(tmp_path):
    def start(**options: Any) -> ld.Logger:
        backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path)]
        return ld.Logger(backends, log_dir=tmp_path, **options)

    with start(name="r") as first:
        states = train(first, range(6), 1.0)
    with start(state=states[2]) as second:  # hides three epochs
        states = train(second, range(3, 5), 2.0)
    with start(state=states[-1]) as third:  # hides nothing
        train(third, range(5, 7), 3.0)
    values = {"train/loss": [1.0] * 30 + [2.0] * 20 + [3.0] * 20, "eval/acc": [1.0] * 3}
    values["eval/acc"] += [2.0, 2.0, 3.0, 3.0]
    run = ld.read_run(third.run_dir)
    shown, kept = shown_by_tensorboard(third.run_dir), kept_by_jsonl(third.run_dir)
    for name, expected in values.items():
        points = list(enumerate(expected))
        curve = run[name]
        assert list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == points
        assert sorted(shown[name]) == points
        assert sorted(kept[name]) == points
    assert run.superseded == 33
    assert len(current_rows(journal_records(third.run_dir))) == len(run)
    # None of them says that rows of the other axis lie on top of older ones.
    assert first.failures == second.failures == third.failures == ()


@pytest.mark.filterwarnings("ignore::lerax_dist.LoggingWarning")
def test_a_state_of_a_lost_folder_hides_what_came_after_it_in_the_new_one(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        (state,) = train(logger, range(1), 1.0)
    shutil.rmtree(tmp_path / "r")
    with ld.Logger(Memory(), log_dir=tmp_path, state=state) as logger:
        train(logger, range(1, 3), 2.0)
    with ld.Logger(Memory(), log_dir=tmp_path, state=state) as logger:
        train(logger, range(1, 2), 3.0)
    assert [row.step for row in current_rows(journal_records(tmp_path / "r"))] == [
        *range(10, 20),
        1,
    ]


def test_a_state_without_records_goes_on_by_its_step(tmp_path):
    _, state = log(tmp_path, range(5))
    log(tmp_path, range(5, 9))
    name = np.frombuffer(b"r".ljust(512, b"\0"), np.uint8)
    old = eqx.tree_at(lambda s: s.name, state, name)
    second, _ = log(tmp_path, [5], None, state=old, failed=False)
    assert shown(second.run_dir) == [*range(6)]
    # As long as an old one could be: there was no room for records.
    long = "/".join(["n" * 100] * 5 + ["n" * 7])
    name = np.frombuffer(long.encode(), np.uint8)
    with pytest.warns(ld.LoggingWarning, match="is not in"):
        state = eqx.tree_at(lambda s: s.name, state, name)
        with ld.Logger(Memory(), log_dir=tmp_path, state=state) as third:
            assert third.name == long
