"""A job that is put back into the queue, and processes that are killed: it ends as one run."""

import sys
from pathlib import Path
from typing import Any

import pytest

from lerax_dist.journal._record import Row
from tests.readers import current_rows, journal_records
from tests.slurm.cluster import Slurm
from tests.slurm.test_slurm import SCRIPTS

# Longer than the limits of the commands below, whose failure shows what there was.
pytestmark = pytest.mark.timeout(400)

WORKER = Path(__file__).parent / "workers" / "interrupted.py"
# As in the worker: steps of an incarnation before it is interrupted, and between checkpoints.
STEPS, CHECKPOINT_EVERY = 35, 10
SCRIPT = ("--nodes=2", "--ntasks-per-node=1", SCRIPTS / "requeue.sbatch")
# Once the run has some rows, what SLURM sends some time before a job's time is up.
TIME_IS_UP = """
job=$(sbatch --parsable "$@") &&
grep -q -m1 '"iteration":3,' < <(tail -n +1 -F "logs/PPO_CartPole-v1_$job/journal.jsonl") &&
scancel --signal=USR1 --batch "$job" &&
srun -Q -N1 -n1 --dependency=afterok:"$job" true
"""


def events(records: list[Any], kind: str) -> list[dict[str, Any]]:
    return [record.body for record in records if getattr(record, "kind", "row") == kind]


def steps_of_incarnations(records: list[Any]) -> list[list[int]]:
    """The steps of the rows that each incarnation has written, in their order."""
    incarnations: list[list[int]] = []
    for record in records:
        if isinstance(record, Row):
            incarnations[-1].append(record.step)
        elif record.kind == "open":
            incarnations.append([])
    return incarnations


def curve(run_dir: Path, tag: str) -> list[int]:
    """The steps that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    shown.Reload()
    return [event.step for event in shown.Scalars(tag)]


def test_a_job_requeued_twice_and_killed_once_ends_as_one_run(slurm: Slurm, tmp_path: Path):
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} {WORKER} "$@"\n')
    stand_in.chmod(0o755)
    variables = {"LERAX_DIST_PYTHON": str(stand_in)}
    outcome = slurm.batch(*SCRIPT, cwd=tmp_path, env=variables, timeout=280)
    assert outcome.text.count("DUE TO JOB REQUEUE") >= 2

    (run_dir,) = (tmp_path / "logs").iterdir()
    records = journal_records(run_dir)
    opens = events(records, "open")
    assert [body["incarnation"] for body in opens] == [1, 2, 3, 4]
    assert {(body["run_id"], body["process_count"]) for body in opens} == {(opens[0]["run_id"], 2)}
    # The third was killed, so it says nothing.
    states = [body["state"] for body in events(records, "close")]
    assert states == ["preempted", "preempted", "finished"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [run_dir.name]

    rows = current_rows(records)
    last = rows[-1].step
    assert [row.step for row in rows] == list(range(last + 1))
    assert [float(row.metrics["x"]) for row in rows] == [0.5 + step for step in range(last + 1)]
    assert curve(run_dir, "x") == list(range(last + 1))

    # In whichever step the signal arrives: each incarnation starts at the last checkpoint of the
    # one before, and the journal has what that has logged after it, too.
    starts = [0, *(body["start_step"] for body in events(records, "resume"))]
    ends = []
    for start, steps in zip(starts, steps_of_incarnations(records), strict=True):
        assert steps == list(range(start, start + len(steps)))
        ends.append(start + len(steps))
    assert all(end >= start + STEPS for start, end in zip(starts[:2], ends[:2], strict=True))
    assert starts[1:3] == [end - end % CHECKPOINT_EVERY for end in ends[:2]]
    # The third was killed in its last step, whose row and those before it may not be written.
    assert starts[3] == starts[2] + STEPS - STEPS % CHECKPOINT_EVERY
    assert starts[3] <= ends[2] <= starts[2] + STEPS
    assert ends[3] == starts[3] + STEPS == last + 1


def test_the_requeue_script_goes_on_when_the_time_is_up(slurm: Slurm, tmp_path: Path):
    size = ("--num-envs", "8", "--num-steps", "512", "--total-steps", "98304")
    outcome = slurm.run(
        *("bash", "-c", TIME_IS_UP, "sbatch", *SCRIPT, *size),
        *("--num-epochs", "1", "--checkpoint-every", "1", "--no-console"),
        cwd=tmp_path,
        env={"LERAX_DIST_PYTHON": sys.executable},
        timeout=280,
    )
    assert "Preempted after " in outcome.text
    (run_dir,) = (tmp_path / "logs").iterdir()
    records = journal_records(run_dir)
    assert [body["incarnation"] for body in events(records, "open")] == [1, 2]
    assert [body["state"] for body in events(records, "close")] == ["preempted", "finished"]
    assert all(body["failures"] == [] for body in events(records, "close"))
    steps = [4096 * (place + 1) for place in range(24)]
    assert [row.step for row in current_rows(records)] == steps
    assert curve(run_dir, "episode/return") == steps
