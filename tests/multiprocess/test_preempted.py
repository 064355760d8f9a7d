"""A signal that reaches one of several processes."""

import equinox as eqx

import lerax_dist as ld
from tests.memory import Memory
from tests.multiprocess.launch import launch
from tests.multiprocess.test_loggers import WORKER
from tests.readers import journal_records, journal_rows


def test_a_signal_to_one_process_ends_all_of_them_at_the_same_step(tmp_path):
    """Process 1 signals itself; both stop after the same step, and the run resumes from there."""
    for incarnation in (1, 2):
        results = launch(WORKER, "preempted", str(tmp_path), processes=2, timeout=120)
        steps = [result.report["steps"] for result in results]
        assert steps[0] == steps[1]
        assert len(steps[0]) == 7
        (run_dir,) = (path for path in tmp_path.iterdir() if path.is_dir())
        records = journal_records(run_dir)
        assert records[-1].body["state"] == "preempted"
        assert [r.report["incarnation"] for r in results] == [incarnation] * 2
        assert journal_rows(run_dir)[-1][0] == steps[0][-1]
        assert results[0].report["state"] == results[1].report["state"]
    # One process instead of two.
    state = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", ld.RunState.empty())
    with ld.Logger(Memory(), log_dir=tmp_path, state=state) as logger:
        assert (logger.run_dir, logger.incarnation) == (run_dir, 3)
    assert journal_records(run_dir)[-3].body == {"start_step": steps[0][-1] + 1}
