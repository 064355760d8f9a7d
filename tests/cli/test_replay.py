"""A backend rebuilt from a journal holds what the journal holds; the journal stays as it is."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lerax_dist as ld
from lerax_dist.backends import _append
from lerax_dist.cli import _replay, main
from lerax_dist.cli._replay import Outcome, replay
from lerax_dist.journal import Damage, JournalReader, Row
from tests.backends.read_wandb import read_wandb
from tests.journal.journals import age, closed, opened, write
from tests.memory import Memory
from tests.readers import event_rows, journal_rows, without_gauges

STEPS = 300


def write_run(log_dir: Path, name: str = "exp/a") -> Path:
    """A finished run; some rows have other metrics, some values are extreme."""
    with ld.Logger(ld.NoOpBackend(), name, log_dir=log_dir, hparams={"lr": 0.5}) as logger:
        for step in range(STEPS):
            row = {"train": {"loss": 1.0 / (step + 1)}, "big": 1e300 * step}
            if step % 7 == 0:
                row["episode"] = {"return": float(step)}
            if step == 100:
                row["odd"] = float("nan")
            logger.log(row, 2**40 + 3 * step)
    return log_dir / name


@pytest.fixture
def run_dir(tmp_path):
    with pytest.warns(ld.LoggingWarning, match="not finite"):
        return write_run(tmp_path / "logs")


def test_events_stand_at_the_times_of_their_rows(tmp_path):
    rows = [Row.of(1.5e9 + 10 * step, step, None, {"x": float(step)}) for step in range(5)]
    write(tmp_path / "r", [opened(), *rows])
    assert main(["replay", str(tmp_path / "r"), "--to", "tensorboard"]) == 0
    accumulator = EventAccumulator(str(tmp_path / "r"))
    accumulator.Reload()
    assert [event.wall_time for event in accumulator.Scalars("x")] == [row.time for row in rows]


def test_tensorboard_holds_steps_and_values_of_the_journal(run_dir, capsys, monkeypatch):
    monkeypatch.setattr(_replay, "_INTERVAL", 60.0)  # nothing is said on the way
    before = (run_dir / "journal.jsonl").read_bytes()
    assert main(["replay", str(run_dir), "--to", "tensorboard"]) == 0
    expected = journal_rows(run_dir)
    found = event_rows(run_dir)
    assert len(found) == STEPS
    assert [step for step, _ in found] == [step for step, _ in expected]
    for (_, values), (_, wanted) in zip(found, expected, strict=True):
        assert list(values) == list(wanted)
        with np.errstate(over="ignore"):
            rounded = [np.float32(value) for value in wanted.values()]
        np.testing.assert_array_equal(list(values.values()), rounded)
    assert (run_dir / "journal.jsonl").read_bytes() == before
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"300 rows, steps 1,099,511,627,776 to 1,099,511,628,673 to tensorboard in {run_dir}\n"
    )


def test_jsonl_goes_to_the_folder_given(run_dir, tmp_path):
    assert main(["replay", str(run_dir), "--to", "jsonl", "--log-dir", str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "exp" / "a" / "metrics.jsonl").read_text().splitlines()
    rows = [without_gauges(json.loads(line)) for line in lines]
    expected = journal_rows(run_dir)
    assert [row.pop("step") for row in rows] == [step for step, _ in expected]
    for row, (_, wanted) in zip(rows, expected, strict=True):
        assert {k: float("nan") if v is None else v for k, v in row.items()} == pytest.approx(
            wanted, rel=0, abs=0, nan_ok=True
        )
    assert json.loads((tmp_path / "out/exp/a/hparams.json").read_text()) == {"lr": 0.5}
    # Another name goes beside the run, and below the folder that its own name is relative to.
    assert main(["replay", str(run_dir), "--to", "jsonl", "--name", "b"]) == 0
    assert (run_dir.parents[1] / "b" / "metrics.jsonl").exists()


def test_wandb_offline(run_dir, tmp_path):
    # In a process of its own, as W&B's service outlives its runs.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lerax_dist.cli", "replay", str(run_dir)),
            *("--to", "wandb", "--log-dir", str(tmp_path / "w"), "--project", "p"),
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "WANDB_MODE": "offline"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "300 rows" in done.stderr
    (found,) = (tmp_path / "w").glob("wandb/offline-run-*/*.wandb")
    read = read_wandb(found)
    assert (read.name, read.project, read.config["lr"]) == ("exp/a", "p", 0.5)
    expected = journal_rows(run_dir)
    assert [row["global_step"] for row in read.rows] == [step for step, _ in expected]
    assert [row["train/loss"] for row in read.rows] == [row["train/loss"] for _, row in expected]


def test_nothing_is_replaced(run_dir, capsys):
    for to in ("tensorboard", "jsonl"):
        assert main(["replay", str(run_dir), "--to", to]) == 0
        before = {path: path.read_bytes() for path in run_dir.iterdir()}
        capsys.readouterr()
        assert main(["replay", str(run_dir), "--to", to]) == 1
        assert "exists, and a replay replaces no file" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in run_dir.iterdir()} == before


def test_what_is_refused_is_left_out_and_counted_and_the_rest_is_there(tmp_path, capsys):
    # TensorBoard's steps have 64 bits.
    rows = [Row.of(1.0, 2**70 if step == 10 else step, None, {"x": 1.0}) for step in range(100)]
    write(tmp_path / "r", [opened(), *rows, closed()])
    assert main(["replay", str(tmp_path / "r"), "--to", "tensorboard"]) == 1
    assert [step for step, _ in event_rows(tmp_path / "r")] == [*range(10), *range(11, 100)]
    said = capsys.readouterr().err
    assert said.startswith("99 rows, steps 0 to 99 to tensorboard")
    assert (
        f"left out 1 record that it does not take, the first in `log_rows` at step {2**70}" in said
    )


def test_a_replay_that_a_disk_has_stopped_is_completed_or_replaced(tmp_path, capsys, monkeypatch):
    rows = [Row.of(1.0, step, None, {"x": step / 7}) for step in range(100)]
    # Epochs, which come late and count from 0.
    rows.insert(60, Row.of(1.0, 3, None, {"epoch/y": 0.5}))
    journal = write(tmp_path / "r", [opened(), *rows, closed()])
    age(tmp_path / "r")
    append, room = _append.Appender.append, [50]

    def full(self, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        append(self, data)

    with monkeypatch.context() as disk:
        disk.setattr(_append.Appender, "append", full)
        assert main(["replay", str(journal), "--to", "jsonl"]) == 1
    said = capsys.readouterr().err
    assert "stopped after 50 rows: " in said and "--from-step 3," in said
    file = tmp_path / "r" / "metrics.jsonl"
    assert len(file.read_text().splitlines()) == 50
    assert main(["replay", str(journal), "--to", "jsonl", "--from-step", "3"]) == 0
    kept: list[dict] = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        kept = [*kept, row] if "step" in row else [r for r in kept if r["step"] < row["resume"]]
    assert kept == [{"step": row.step, **row.metrics} for row in rows]
    assert main(["replay", str(journal), "--to", "jsonl", "--force"]) == 0
    assert list(map(json.loads, file.read_text().splitlines())) == kept


def test_no_file_of_a_run_that_is_written_is_replaced(tmp_path, capsys):
    with ld.Logger(ld.JSONLBackend(tmp_path), "r") as logger:
        logger.log({"x": 1.0}, 0)
        logger.flush()
        for how in (["--force"], ["--from-step", "0"]):
            assert main(["replay", str(logger.run_dir), "--to", "jsonl", *how]) == 1
            assert "while the run is being written" in capsys.readouterr().err
        logger.log({"x": 2.0}, 1)
    assert len((logger.run_dir / "metrics.jsonl").read_text().splitlines()) == 2


def test_damaged_lines_are_counted_and_the_rest_is_there(run_dir, capsys):
    path = run_dir / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[50] = lines[50].replace(b"train", b"tr\x00in")  # lost
    lines.insert(100, lines[100][:20] + b"\n")  # torn, and written again whole
    path.write_bytes(b"".join(lines)[:-10])
    age(run_dir)
    before = path.read_bytes()
    assert main(["replay", str(path), "--to", "tensorboard"]) == 0
    said = capsys.readouterr().err
    assert "299 rows" in said
    assert "skipped 2 damaged lines of the journal" in said
    assert "missing from the journal: 1 record" in said
    assert "the last line of the journal has no end" in said
    assert len(event_rows(run_dir)) == STEPS - 1
    assert path.read_bytes() == before


def test_lines_that_were_written_again_lose_nothing(run_dir):
    path = run_dir / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:9], b"half a l\n", *lines[7:]]))
    reader = JournalReader(path)
    rows = [record for _, record in reader.records() if isinstance(record, Row)]
    assert (len(rows), reader.damage) == (STEPS, Damage(lines=1))


def test_a_run_that_is_still_written_is_replayed_up_to_now(tmp_path, capsys):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        logger.log({"loss": 1.0}, 5)
        logger.flush()
        assert main(["replay", str(tmp_path / "r"), "--to", "tensorboard"]) == 0
        logger.log({"loss": 2.0}, 6)
    assert event_rows(tmp_path / "r") == [(5, {"loss": 1.0})]
    assert "the run is still being written" in capsys.readouterr().err
    assert [step for step, _ in journal_rows(tmp_path / "r")] == [5, 6]


def test_a_folder_without_a_run(tmp_path, capsys):
    assert main(["replay", str(tmp_path), "--to", "jsonl"]) == 1
    assert "there is no journal.jsonl in" in capsys.readouterr().err


def test_a_name_that_leaves_the_folder_is_refused(run_dir, tmp_path, capsys):
    assert main(["replay", str(run_dir), "--to", "jsonl", "--name", "../b"]) == 1
    assert "must not leave" in capsys.readouterr().err


def test_rows_that_came_again_after_a_resume_are_left_out(tmp_path, capsys):
    for steps in (range(0, 6), range(3, 8)):
        with pytest.raises(KeyError), ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
            for step in steps:
                logger.log({"x": float(step)}, step)
            raise KeyError
    assert main(["replay", str(tmp_path / "r"), "--to", "jsonl"]) == 0
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(8))
    assert (
        "skipped 3 rows that a later incarnation of the run logged again" in capsys.readouterr().err
    )


class RunMemory(Memory):
    """Also records the facts and the end of the run."""

    def on_run(self, facts):
        self.calls.append(("run", facts["incarnation"], facts["launcher"]))

    def on_end(self, state):
        self.calls.append(("end", state))


def test_a_backend_gets_the_facts_of_the_run_and_its_end_also_after_a_kill(run_dir):
    journal = run_dir / "journal.jsonl"
    memory = RunMemory()
    replay(journal, memory, "a", Outcome())
    assert memory.calls[:2] == [("open", "a"), ("run", 1, "solo")]
    assert memory.calls[-2:] == [("end", "finished"), ("close",)]
    # As a killed process leaves it.
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    age(run_dir)
    memory = RunMemory()
    replay(journal, memory, "a", Outcome())
    assert memory.calls[-2:] == [("end", "interrupted"), ("close",)]
