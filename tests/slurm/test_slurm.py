"""Launches by a real SLURM: two nodes on this machine, started for these tests."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.multiprocess import scenario
from tests.multiprocess.launch import ROOT, launch
from tests.multiprocess.test_numbers import MODES, WORKER, check_rows
from tests.readers import event_rows, journal_records, journal_rows
from tests.slurm.cluster import NODES, Outcome, Slurm

PLACE = Path(__file__).parent / "workers" / "place.py"
SCRIPTS = ROOT / "slurm"
PYTHON = sys.executable
FOUR = ("-N2", "--ntasks-per-node=2")


def check_alone(reports: list[dict[str, Any]], folder: Path):
    """One process that knows no other and has logged."""
    (report,) = reports
    assert (report["launcher"], report["joined"]) == ("solo", [0, 1])
    assert [step for step, _ in journal_rows(folder / "logs" / "run")] == [0, 1, 2]


def places(outcome: Outcome, name: str) -> list[Any]:
    return [report[name] for report in outcome.reports]


def test_the_numbers_of_four_processes_on_two_nodes_are_the_reference(slurm: Slurm, tmp_path: Path):
    outcome = slurm.run("srun", *FOUR, PYTHON, WORKER, tmp_path, "1", "close", "1", cwd=tmp_path)
    assert places(outcome, "process") == [0, 1, 2, 3]
    assert places(outcome, "count") == [4] * 4
    assert places(outcome, "devices") == [4] * 4
    assert places(outcome, "imported")[1:] == [[]] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(MODES)
    for mode in MODES:
        check_rows(journal_rows(tmp_path / mode), scenario.expected_rows())
        check_rows(event_rows(tmp_path / mode), scenario.expected_rows())
        assert len(list((tmp_path / mode).glob("*tfevents*"))) == 1


def test_srun_is_found_with_its_nodes_and_processes(slurm: Slurm, tmp_path: Path):
    outcome = slurm.run("srun", *FOUR, PYTHON, PLACE, cwd=tmp_path)
    assert places(outcome, "launcher") == ["slurm"] * 4
    assert places(outcome, "joined") == [[index, 4] for index in range(4)]
    assert places(outcome, "count") == [4] * 4
    assert places(outcome, "node") == [NODES[0], NODES[0], NODES[1], NODES[1]]
    (run_dir,) = set(places(outcome, "run_dir"))
    assert [step for step, _ in journal_rows(Path(run_dir))] == [0, 1, 2]


def test_a_launch_that_was_not_joined_is_an_error_that_names_the_call(slurm: Slurm, tmp_path: Path):
    env = {"LERAX_DIST_TEST_FORGET": "1"}
    outcome = slurm.run("srun", "-N2", "-n2", PYTHON, PLACE, cwd=tmp_path, env=env)
    for index, error in enumerate(places(outcome, "error")):
        assert error.startswith(f"This is process {index} of 2 (slurm: SLURM_PROCID={index} ")
        assert "Call `lerax_dist.initialize()` at the top of the script" in error
    assert len(outcome.reports) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_batch_script_without_srun_is_one_process(slurm: Slurm, tmp_path: Path):
    wrap = f"--wrap={PYTHON} {PLACE}"
    outcome = slurm.batch(*FOUR, "--output=%j.out", wrap, cwd=tmp_path)
    check_alone(outcome.reports, tmp_path)


def test_salloc_without_srun_is_one_process(slurm: Slurm, tmp_path: Path):
    outcome = slurm.run("salloc", *FOUR, PYTHON, PLACE, cwd=tmp_path)
    check_alone(outcome.reports, tmp_path)


def test_a_shell_that_inherits_the_variables_of_a_job_is_one_process(slurm: Slurm, tmp_path: Path):
    environment = slurm.run("salloc", *FOUR, "env", cwd=tmp_path).text
    inherited = dict(re.findall(r"^(SLURM_\w+)=(.*)$", environment, re.MULTILINE))
    assert inherited["SLURM_NTASKS"] == "4"
    (result,) = launch(PLACE, launcher="solo", env=inherited, cwd=tmp_path)
    check_alone([result.report], tmp_path)


def test_mpirun_in_an_allocation_is_one_world(slurm: Slurm, tmp_path: Path):
    mpirun = Path(PYTHON).with_name("mpirun")
    command = (mpirun, "-n", "2", PYTHON, PLACE)
    outcome = slurm.run("salloc", "-N2", "--ntasks-per-node=1", *command, cwd=tmp_path)
    assert places(outcome, "launcher") == ["openmpi"] * 2
    assert places(outcome, "joined") == [[0, 2], [1, 2]]
    (run_dir,) = set(places(outcome, "run_dir"))
    assert [step for step, _ in journal_rows(Path(run_dir))] == [0, 1, 2]


def test_the_cpu_script_trains_on_two_nodes_from_any_folder(slurm: Slurm, tmp_path: Path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    outcome = slurm.batch(
        *("--ntasks-per-node=1", SCRIPTS / "cpu.sbatch"),
        *("--total-steps", "49152", "--num-epochs", "1"),
        cwd=folder,
        env={"LERAX_DIST_PYTHON": PYTHON},
    )
    assert re.search(r"CartPole-v1 (not )?solved: mean return", outcome.text)
    (run_dir,) = (folder / "logs").iterdir()
    rows = journal_rows(run_dir)
    assert [step for step, _ in rows] == [16384, 32768, 49152]
    assert [step for step, _ in event_rows(run_dir)] == [16384, 32768, 49152]
    assert all(10 < row["episode/return"] < 500 for _, row in rows)
    records = journal_records(run_dir)
    assert records[0].body["process_count"] == 2
    assert records[-1].body["state"] == "finished"


@pytest.mark.parametrize("script", ["cpu", "gpu_per_process", "gpu_per_node", "requeue"])
def test_a_script_asks_for_what_slurm_can_give(slurm: Slurm, tmp_path: Path, script: str):
    path = SCRIPTS / f"{script}.sbatch"
    outcome = slurm.run("sbatch", "--test-only", path, cwd=tmp_path)
    assert "on nodes 127.0.0.[1-2] in partition main" in outcome.text


@pytest.mark.parametrize(
    ("script", "options", "shown", "taken"),
    [
        ("gpu_per_process", ["--gres=gpu:2", "--ntasks-per-node=2"], ["0,1"] * 4, ["0", "1"] * 2),
        ("gpu_per_node", [], ["0,1,2,3"] * 2, ["all"] * 2),
    ],
)
def test_each_process_of_a_gpu_script_takes_its_gpus(
    slurm: Slurm,
    tmp_path: Path,
    script: str,
    options: list[str],
    shown: list[str],
    taken: list[str],
):
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\nexec {PYTHON} {PLACE} "$@"\n')
    stand_in.chmod(0o755)
    outcome = slurm.batch(
        *(*options, SCRIPTS / f"{script}.sbatch", "--name", "two words"),
        cwd=tmp_path,
        env={"LERAX_DIST_PYTHON": str(stand_in)},
    )
    assert places(outcome, "launcher") == ["slurm"] * len(taken)
    assert places(outcome, "shown") == shown
    assert places(outcome, "taken") == taken
    arguments = [str(ROOT / "examples" / "ppo_cartpole.py"), "--name", "two words"]
    assert places(outcome, "arguments") == [arguments] * len(taken)


def test_a_gpu_script_does_not_train_on_the_cpu(slurm: Slurm, tmp_path: Path):
    # SLURM gives GPUs that this machine does not have.
    with pytest.raises(AssertionError, match="JAX finds no GPU on ") as caught:
        slurm.batch(
            *("--gres=gpu:2", SCRIPTS / "gpu_per_node.sbatch"),
            cwd=tmp_path,
            env={"LERAX_DIST_PYTHON": PYTHON, "JAX_PLATFORMS": ""},
        )
    assert "CartPole" not in str(caught.value)


def test_gpus_that_slurm_gives_to_one_process_are_all_taken(slurm: Slurm, tmp_path: Path):
    command = ("srun", "-N1", "-n2", "--gpus-per-task=2", PYTHON, PLACE)
    outcome = slurm.run(*command, cwd=tmp_path)
    assert places(outcome, "shown") == ["0,1", "2,3"]
    assert places(outcome, "taken") == ["all", "all"]


def test_a_script_that_is_not_started_by_sbatch_says_so(slurm: Slurm, tmp_path: Path):
    with pytest.raises(AssertionError, match="SLURM_JOB_ID: Start this file with sbatch"):
        slurm.run("bash", SCRIPTS / "cpu.sbatch", cwd=tmp_path, env={"HOME": os.environ["HOME"]})


def test_two_steps_of_a_job_side_by_side_are_two_launches(slurm: Slurm, tmp_path: Path):
    step = f"srun --exact -N1 -n2 {PYTHON} {PLACE}"
    wrap = f"--wrap=mkdir a b; (cd a; {step} a) & (cd b; {step} b) & wait"
    outcome = slurm.batch("-N1", "-n4", "--output=%j.out", wrap, cwd=tmp_path)
    found = sorted((report["arguments"], report["process"]) for report in outcome.reports)
    assert found == [(["a"], 0), (["a"], 1), (["b"], 0), (["b"], 1)]
    assert places(outcome, "count") == [2] * 4
    for name in "ab":
        assert [step for step, _ in journal_rows(tmp_path / name / "logs" / "run")] == [0, 1, 2]
