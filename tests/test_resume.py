"""A run that is interrupted resumes as one run: no row lost, none shown twice, none erased."""

import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import lerax_dist as ld
from tests.backends.read_wandb import read_wandb
from tests.memory import Memory
from tests.readers import (
    current_rows,
    journal_records,
    journal_rows,
    kept_by_jsonl,
    shown_by_tensorboard,
)


class Tells(Memory):
    """Keeps identity and resume, too."""

    def on_identity(self, run_id, incarnation):
        self.calls.append(("identity", run_id, incarnation))

    def on_resume(self, start_step):
        self.calls.append(("resume", start_step))


def log(log_dir, steps, backend: Any = None, *, failed=True, name: str | None = "r", **options):
    """One incarnation; by default it ends with an error."""
    backend = backend or Tells()
    logger = ld.Logger(backend, name, log_dir=log_dir, **options)
    for step in steps:
        logger.log({"x": float(step)}, step)
    logger.close(failed=failed)
    return logger, backend


def kinds_of(run_dir):
    return [getattr(record, "kind", "row") for record in journal_records(run_dir)]


def test_a_run_that_has_not_finished_is_continued_under_its_id(tmp_path):
    first, _ = log(tmp_path, range(3))
    second, backend = log(tmp_path, range(2, 5))
    assert (first.run_dir, first.run_id) == (second.run_dir, second.run_id)
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert backend.calls[:2] == [("identity", first.run_id, 2), ("open", "r")]
    assert ("resume", 2) in backend.calls
    assert kinds_of(tmp_path / "r") == [
        *("open", "start", "row", "row", "row", "close"),
        *("open", "start", "resume", "row", "row", "row", "close"),
    ]


def test_what_comes_again_is_superseded_and_stays_in_the_journal(tmp_path):
    for steps in (range(0, 6), range(3, 8), range(6, 10)):
        log(tmp_path, steps)
    rows = [step for step, _ in journal_rows(tmp_path / "r")]
    assert rows == [*range(0, 6), *range(3, 8), *range(6, 10)]
    assert [row.step for row in current_rows(journal_records(tmp_path / "r"))] == list(range(10))


def test_start_step_supersedes_from_there_before_any_row(tmp_path):
    log(tmp_path, range(0, 60, 10))
    _, backend = log(tmp_path, [40, 50], start_step=35)
    assert [call for call in backend.calls if call[0] == "resume"] == [("resume", 35)]
    assert kinds_of(tmp_path / "r")[9:] == [
        *("open", "resume", "start", "row", "row", "close"),
    ]
    assert [r.step for r in current_rows(journal_records(tmp_path / "r"))] == [
        *(0, 10, 20, 30),
        *(40, 50),
    ]


def test_a_fresh_run_hears_of_no_resume(tmp_path):
    _, backend = log(tmp_path, range(3), start_step=7)
    assert [call[0] for call in backend.calls] == ["identity", "open", "start", "close"]
    assert "resume" not in kinds_of(tmp_path / "r")


def test_a_finished_run_is_left_alone_and_the_next_has_a_name_of_its_own(tmp_path):
    log(tmp_path, range(3), failed=False)
    before = (tmp_path / "r" / "journal.jsonl").read_bytes()
    second, _ = log(tmp_path, range(3))
    assert second.name == "r_2"
    third, _ = log(tmp_path, range(3))
    assert (third.name, third.incarnation) == ("r_2", 2)
    assert (tmp_path / "r" / "journal.jsonl").read_bytes() == before


def test_must_continues_a_finished_run_and_refuses_a_name_that_is_not_there(tmp_path):
    log(tmp_path, range(3), failed=False)
    second, _ = log(tmp_path, range(3), resume="must")
    assert (second.name, second.incarnation) == ("r", 2)
    with pytest.raises(ValueError, match="`resume` is \"must\", but there is no run 'other'"):
        log(tmp_path, [], name="other", resume="must")


def test_never_takes_a_new_name(tmp_path):
    log(tmp_path, range(3))
    second, _ = log(tmp_path, range(3), resume="never")
    assert (second.name, second.incarnation) == ("r_2", 1)


def test_another_way_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match='`resume` must be "auto", "allow", "must" or "never", got True'
    ):
        log(tmp_path, [], resume=True)
    with pytest.raises(ValueError, match="`start_step` must be 0 or more, got -1"):
        log(tmp_path, [], start_step=-1)


def test_a_batch_job_that_is_started_again_finds_its_run_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    first, _ = log(tmp_path, range(3), name=None)
    # Another run of the same job is another run, though the first has failed.
    other, _ = log(tmp_path, range(3), name=None)
    assert [(run.name, run.incarnation) for run in (first, other)] == [("4711", 1), ("4711_2", 1)]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with ld.Logger(Memory(), log_dir=tmp_path) as one, ld.Logger(Memory(), log_dir=tmp_path) as two:
        assert [(run.name, run.incarnation) for run in (one, two)] == [("4711", 2), ("4711_2", 2)]


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [("PBS_JOBID", "77.pbs", "77.pbs"), ("FLUX_JOB_ID", "ƒ2Vy", "f2Vy")],
)
def test_a_made_name_holds_the_id_of_any_batch_job(tmp_path, monkeypatch, variable, value, name):
    monkeypatch.setenv(variable, value)
    run, _ = log(tmp_path, range(3), name=None)
    assert run.name == name


def test_a_run_to_continue_that_is_not_there_is_created_aloud_or_an_error(
    tmp_path, monkeypatch, caplog
):
    with caplog.at_level("INFO", "lerax_dist"):
        run, _ = log(tmp_path / "one", range(3), resume="allow")
    assert (run.name, run.incarnation) == ("r", 1)
    assert f"there is no run 'r' in {tmp_path / 'one'} on host " in caplog.text
    # A job that was started again, on a node without the folder of its run.
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    for name in (None, "r"):
        with pytest.raises(ValueError, match='`resume` is "must", but there is no run'):
            log(tmp_path / "two", [], name=name, resume="must")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for name, resume in [(None, "auto"), ("r", "allow")]:
        with pytest.warns(ld.LoggingWarning, match="it is created.*use a folder that all hosts"):
            log(tmp_path / "two", range(3), name=name, resume=resume)
        with pytest.raises(ValueError, match="there is no run"):
            log(tmp_path / "three", [], name=name, resume="must")
    assert not (tmp_path / "three").exists()


def test_without_a_job_a_made_name_continues_nothing(tmp_path):
    first, _ = log(tmp_path, range(3), name=None)
    second, _ = log(tmp_path, range(3), name=None)
    assert first.run_dir != second.run_dir


KILLED = """
import os, signal, sys
import lerax_dist as ld
log_dir, first, last, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
backends = [ld.TensorBoardBackend(log_dir), ld.WandbBackend("p", quiet=True, dir=log_dir)]
logger = ld.Logger(backends, "r")
for step in range(first, last):
    logger.log({"x": float(step)}, step)
logger.flush()
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
logger.close()
"""


def start(log_dir, first, last, end):
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(log_dir), str(first), str(last), end],
        env={**env, "HOME": str(log_dir), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == (-signal.SIGKILL if end == "kill" else 0), done.stderr


@pytest.mark.launch
def test_a_run_killed_twice_is_one_curve_everywhere(tmp_path):
    start(tmp_path, 0, 60, "kill")
    start(tmp_path, 40, 90, "kill")
    start(tmp_path, 80, 120, "finish")

    records = journal_records(tmp_path / "r")
    opens = [record.body for record in records if getattr(record, "kind", "") == "open"]
    assert [body["incarnation"] for body in opens] == [1, 2, 3]
    assert len({body["run_id"] for body in opens}) == 1
    assert [row.step for row in current_rows(records)] == list(range(120))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(tmp_path / "r"), size_guidance={"scalars": 0})
    shown.Reload()
    assert [event.step for event in shown.Scalars("x")] == list(range(120))
    assert len(list((tmp_path / "r").glob("*tfevents*"))) == 3

    runs = [read_wandb(path) for path in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))]
    # W&B writes 32 KiB at a time; what it had not written when it was killed the journal has.
    assert len(runs) == 3
    assert {run.id for run in runs} - {""} == {opens[0]["run_id"]}
    assert [row["global_step"] for row in runs[-1].rows] == list(range(80, 120))
    assert runs[-1].exit_code == 0


def test_a_slash_at_the_end_of_a_name_puts_no_run_into_another(tmp_path):
    first, _ = log(tmp_path, range(3), name="group/r/", failed=False)
    second, _ = log(tmp_path, range(3), name="group/r/", failed=False)
    assert (first.name, second.name) == ("group/r", "group/r_2")


@pytest.mark.parametrize("left", ["", "{", "[]", None])
def test_a_run_whose_own_file_is_lost_is_known_by_its_journal(tmp_path, left):
    first, _ = log(tmp_path, range(3))
    log(tmp_path, range(3), hparams={"kind": "open"})
    path = tmp_path / "r" / "run.json"
    if left is None:
        path.unlink()
    else:
        path.write_text(left)
    third, _ = log(tmp_path, range(3))
    assert (third.run_id, third.incarnation) == (first.run_id, 3)


def test_the_file_that_says_who_a_run_is_is_on_the_disk_before_it_has_its_name(
    tmp_path, monkeypatch
):
    sizes = []

    def fsync(descriptor, real=os.fsync):
        real(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part"):
            sizes.append(os.fstat(descriptor).st_size)

    def replace(source, target, real=os.replace):
        assert sizes == [os.stat(source).st_size]
        real(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    log(tmp_path, [])
    assert len(sizes) == 1 and sizes[0] > 0


def test_a_row_rewinds_rows_of_its_own_metrics_only_and_everywhere_alike(tmp_path):
    """Epochs, updates and a first count in one run; the second start begins with an evaluation."""

    def train(incarnation, epochs, *, failed):
        backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path)]
        logger = ld.Logger(backends, "r", log_dir=tmp_path)
        logger.log({"parameters": 7.0}, 0)
        logger.flush()  # The first row decides before the next is there.
        if incarnation > 1:
            logger.log({"eval/acc": incarnation, "epoch": epochs[0] - 1}, epochs[0] - 1)
            logger.flush()
        for epoch in epochs:
            for step in range(10 * epoch, 10 * epoch + 10):
                # A metric that some rows lack, and one that both kinds of rows have.
                more = {"train/return": incarnation} if step % 7 == 0 else {}
                logger.log({"train/loss": incarnation, "epoch": epoch, **more}, step)
            logger.log({"eval/acc": incarnation, "epoch": epoch}, epoch)
        logger.close(failed=failed)
        return logger

    train(1, range(12), failed=True)
    logger = train(2, range(11, 13), failed=True)
    assert logger.failures == ()  # 13 of 133 rows
    logger = train(3, range(4, 14), failed=False)
    (hidden,) = logger.failures
    assert "rows of the run so far are superseded" in hidden.message

    def curve(starts):
        return [(step, float(i)) for i, steps in enumerate(starts, 1) for step in steps]

    expected = {
        "parameters": [(0, 7.0)],
        "train/loss": curve([range(40), [], range(40, 140)]),
        "train/return": curve([range(0, 40, 7), [], range(42, 140, 7)]),
        "eval/acc": curve([range(3), [], range(3, 14)]),
    }
    run = ld.read_run(logger.run_dir)
    journal = {
        name: list(zip(*map(np.ndarray.tolist, run[name]), strict=True)) for name in expected
    }
    assert journal == expected
    shown, kept = shown_by_tensorboard(logger.run_dir), kept_by_jsonl(logger.run_dir)
    for name, points in expected.items():
        assert (name, sorted(shown[name])) == (name, points)
        assert (name, sorted(kept[name])) == (name, points)


def test_a_run_that_begins_again_from_far_back_says_what_is_hidden_and_what_to_do(tmp_path):
    log(tmp_path, range(100))
    with pytest.warns(ld.LoggingWarning, match="91 of the 100 rows.*x continued at step 9.*pass"):
        log(tmp_path, range(9, 11))
    assert list(ld.read_run(tmp_path / "r").steps) == list(range(11))


def test_a_start_step_that_hides_much_says_so_and_a_state_hides_what_came_after_it(tmp_path):
    log(tmp_path, range(100))
    log(tmp_path, range(95, 100), start_step=95)
    state = ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path, start_step=100)
    saved = state.state()
    state.close(failed=True)
    with pytest.warns(ld.LoggingWarning, match="100 of the 100 rows.*the run continued at step 0"):
        log(tmp_path, range(50), start_step=0)
    again, _ = log(tmp_path, [100], state=saved)
    assert again.failures == ()
    assert list(ld.read_run(tmp_path / "r").steps) == [100]


def test_allow_continues_a_run_whatever_its_state_and_else_starts_it(tmp_path):
    for incarnation, failed in enumerate([False, False, True], 1):
        run, _ = log(tmp_path, [incarnation], failed=failed, resume="allow")
        assert (run.name, run.incarnation) == ("r", incarnation)
