"""A signal that reaches some of several processes."""

import equinox as eqx
import pytest

import lerax_dist as ld
from tests.memory import Memory
from tests.multiprocess.launch import launch
from tests.multiprocess.test_loggers import WORKER
from tests.readers import journal_records, journal_rows


def run_of(folder):
    (run_dir,) = (path for path in folder.iterdir() if path.is_dir())
    return run_dir


def leave(folder, way, incarnation):
    """Three processes that leave a loop after the same step, by the logger and by JAX."""
    results = launch(
        *(WORKER, "preempted", str(folder), way), processes=3, launcher="explicit", timeout=120
    )
    first = results[0].report
    for result in results:
        assert {**result.report, "process": 0} == {**first, "process": 0}
        assert "terminate" not in result.stderr
    assert first["incarnation"] == incarnation
    assert None not in (first["left"], first["synced"]) and first["again"]
    records = journal_records(run_of(folder))
    assert records[-1].body == {"state": "preempted", "failures": []}
    assert journal_rows(run_of(folder))[-1][0] == first["last"]
    return first


@pytest.mark.parametrize("way", ["all", "early"])
def test_all_processes_leave_after_the_same_step(tmp_path, way):
    """A collective in each step would hang those that stay."""
    leave(tmp_path, way, 1)


def test_a_signal_to_one_process_ends_all_of_them_and_the_run_resumes(tmp_path):
    for incarnation in (1, 2):
        last = leave(tmp_path, "one", incarnation)["last"]
    # One process instead of three.
    state = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", ld.RunState.empty())
    with ld.Logger(Memory(), log_dir=tmp_path, state=state) as logger:
        assert (logger.run_dir, logger.incarnation) == (run_of(tmp_path), 3)
    assert journal_records(logger.run_dir)[-3].body == {"start_step": last + 1}
