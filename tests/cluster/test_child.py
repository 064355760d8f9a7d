"""Which process is a child of one that has joined, by the mark in its environment."""

import json
import os
from pathlib import Path

import pytest

from lerax_dist.cluster import detect
from lerax_dist.cluster._child import _MARK, check_no_child, mark_joined

RANK = {"PMI_RANK": "0", "PMI_SIZE": "4", "PMI_FD": "9"}


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mark of this process, as rank 0 of a launch by MPICH."""
    for name, value in RANK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(_MARK, "")
    mark_joined(detect(os.environ))
    return json.loads(os.environ[_MARK])


def as_child(monkeypatch: pytest.MonkeyPatch, mark: list[str]) -> None:
    """Let the mark be that of the parent of this process."""
    pid = os.getppid()
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    monkeypatch.setenv(_MARK, json.dumps([pid, start, *mark[2:]]))


def test_a_child_is_one(monkeypatch: pytest.MonkeyPatch, mark: list[str]):
    as_child(monkeypatch, mark)
    with pytest.raises(RuntimeError, match=r"is a child of pid \d+, process 0 of 4 \(mpich: PMI"):
        check_no_child(detect(os.environ))


def test_a_restart_by_exec_is_none(mark: list[str]):
    check_no_child(detect(os.environ))


@pytest.mark.parametrize("other", [{"PMI_FD": "21"}, {"PMI_SIZE": "2"}, {"SLURM_JOB_ID": "8"}])
def test_a_process_of_a_launch_inside_is_none(
    monkeypatch: pytest.MonkeyPatch, mark: list[str], other: dict[str, str]
):
    as_child(monkeypatch, mark)
    for name, value in other.items():
        monkeypatch.setenv(name, value)
    if "SLURM_JOB_ID" in other:  # `srun` inside
        for name, value in {
            **{"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "3"},
            **{"SLURM_STEP_NODELIST": "n1"},
        }.items():
            monkeypatch.setenv(name, value)
        for name in RANK:
            monkeypatch.delenv(name)
    check_no_child(detect(os.environ))


def test_a_process_whose_parent_has_ended_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, mark: list[str]
):
    monkeypatch.setenv(_MARK, json.dumps([os.getppid(), "1", *mark[2:]]))
    check_no_child(detect(os.environ))
    monkeypatch.setenv(_MARK, "damaged")
    check_no_child(detect(os.environ))
