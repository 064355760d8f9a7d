"""The examples, started as a user starts them, and the contents of their logs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.multiprocess.launch import launch
from tests.readers import event_images, event_rows, journal_records, journal_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(script, tmp_path, *args, processes, devices=1):
    launcher = "solo" if processes == 1 else "openmpi"
    results = launch(
        EXAMPLES / script,
        *args,
        processes=processes,
        devices=devices,
        launcher=launcher,
        cwd=tmp_path,
        timeout=280,
        check=False,
    )
    assert [result.returncode for result in results] == [0] * processes, results[0].stderr
    (run_dir,) = (tmp_path / "logs").iterdir()
    assert (
        len(list(run_dir.glob("*tfevents*[!s]"))) == 1
    )  # the other is that of the hyperparameters
    return results[0].stdout, run_dir


def test_ppo_solves_cartpole_on_two_processes(tmp_path):
    printed, run_dir = start("ppo_cartpole.py", tmp_path, processes=2)
    rows = journal_rows(run_dir)
    assert len(rows) == 32
    assert [step for step, _ in rows] == [16384 * (i + 1) for i in range(32)]
    assert rows[-1][1]["episode/return"] > 450
    assert rows[0][1]["episode/return"] < 100
    assert [step for step, _ in event_rows(run_dir)] == [step for step, _ in rows]
    assert re.search(r"CartPole-v1 solved: mean return 4[5-9]\d\.\d|500\.0 of 500", printed)
    # Process 0 prints, also where the logs are; the other process prints nothing.
    assert printed.count(f"The logs are in {run_dir}. View them: tensorboard --logdir logs") == 1
    assert printed.count("100.0%") == 1
    records = journal_records(run_dir)
    assert records[0].body["process_count"] == 2
    assert records[-1].body == {"state": "finished", "failures": []}


def test_ppo_runs_on_devices_of_one_process_with_the_same_rows(tmp_path):
    arguments = ("--total-steps", "65536", "--no-console")
    rows = {}
    for processes, devices in ((1, 1), (1, 4), (2, 2)):
        folder = tmp_path / f"{processes}x{devices}"
        folder.mkdir()
        video = ("--video-interval", "3") if processes == 2 else ()
        _, run_dir = start(
            "ppo_cartpole.py", folder, *arguments, *video, processes=processes, devices=devices
        )
        rows[processes, devices] = journal_rows(run_dir)
        shown = [(tag, step, len(frames)) for tag, step, frames in event_images(run_dir)]
        # Iterations 0 and 3 of four, at the steps of their rows.
        clips = [("eval/video", 16384, 128), ("eval/video", 65536, 128)]
        assert shown == (clips if video else [])
    first = {split: found[0] for split, found in rows.items()}
    # Each environment has a key of its own, so the first rollout is the same on every split.
    for step, row in first.values():
        assert step == 16384
        assert row["episode/return"] == pytest.approx(first[1, 1][1]["episode/return"], rel=1e-5)
        assert row["train/learning_rate"] == pytest.approx(first[1, 1][1]["train/learning_rate"])
    assert {len(found) for found in rows.values()} == {4}


@pytest.mark.parametrize(("processes", "devices"), [(1, 1), (2, 2)])
def test_a_plain_loop_learns_the_digits(tmp_path, processes, devices):
    printed, run_dir = start("plain_loop.py", tmp_path, processes=processes, devices=devices)
    rows = journal_rows(run_dir)
    assert [step for step, _ in rows] == list(range(300))
    assert rows[-1][1]["test/accuracy"] > 0.95
    assert rows[-1][1]["train/loss"] < 0.2 < rows[0][1]["train/loss"]
    assert re.search(r"digits: test accuracy 0\.9[5-9]\d|1\.000", printed)


SLOW_SPLIT = pytest.param(2, 2, marks=pytest.mark.full)


@pytest.mark.parametrize(("processes", "devices"), [(1, 4), SLOW_SPLIT])
def test_a_supervised_scan_logs_each_step_and_each_evaluation(tmp_path, processes, devices):
    printed, run_dir = start("supervised_scan.py", tmp_path, processes=processes, devices=devices)
    rows = journal_rows(run_dir)
    train = [(step, row) for step, row in rows if "train/loss" in row]
    test = [(step, row) for step, row in rows if "test/loss" in row]
    assert [step for step, _ in train] == list(range(400))
    assert [step for step, _ in test] == list(range(49, 400, 50))
    assert test[-1][1]["test/accuracy"] > 0.95
    assert train[-1][1]["train/loss"] < 0.1 < train[0][1]["train/loss"]
    assert all(row["train/loss"] < row["train/loss_worst"] for _, row in train)
    assert re.search(r"digits: test accuracy (0\.9[5-9]\d|1\.000)", printed)


@pytest.mark.parametrize(("processes", "devices"), [(1, 4), SLOW_SPLIT])
def test_episodes_of_a_wrapper_are_those_of_all_agents_that_ended_one(tmp_path, processes, devices):
    printed, run_dir = start("wrapped_episodes.py", tmp_path, processes=processes, devices=devices)
    rows = journal_rows(run_dir)
    assert [step for step, _ in rows] == [32 * 32 * (i + 1) for i in range(60)]
    assert rows[0][1]["episode/return"] < -10 < -5 < rows[-1][1]["episode/return"]
    for _, row in rows:
        assert row["episode/count"] == round(row["episode/count"])
        assert 3 <= row["episode/length"] <= 20
    assert "walk: mean return -1" in printed


def test_a_number_of_environments_that_the_devices_do_not_divide_is_an_error(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ppo_cartpole.py", "--num-envs", "30"],
        cwd=tmp_path,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "--num-envs 30 must be a multiple of 4 devices" in done.stderr


def test_the_script_for_tpus_starts_the_same_line_on_every_host(tmp_path):
    """With a `gcloud` that records its arguments, as there is no TPU here."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/commands\n')
    gcloud.chmod(0o755)
    subprocess.run(
        ["bash", EXAMPLES / "tpu_pod.sh", "slice", "zone", "/mnt/shared", "--name", "two words"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        timeout=60,
    )
    printed = (tmp_path / "commands").read_text()
    assert printed.count("compute tpus tpu-vm") == printed.count("--zone=zone --worker=all") == 3
    start = printed.splitlines()[-1]
    assert "python lerax_dist/examples/ppo_cartpole.py --no-console" in start
    assert "--checkpoint-dir /mnt/shared/checkpoints/ppo-slice" in start
    assert start.endswith("--name two\\ words >ppo.log 2>&1 </dev/null &")
