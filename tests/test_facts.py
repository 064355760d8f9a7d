"""What a run says of where it runs, and from what code.

Git is asked by the private function that does so: at the door each question is an interpreter.
"""

import json
import subprocess
import sys

import jax
import pytest

import lerax_dist as ld
from lerax_dist import _facts
from lerax_dist._facts import git_state, parse_git_status
from lerax_dist.cluster import with_counts
from tests.memory import Memory


class Facts(Memory):
    """Keeps the facts of the run, beside the rows."""

    def on_run(self, facts):
        self.calls.append(("run", facts, len(self.rows)))

    def on_end(self, state):
        self.calls.append(("end", state, len(self.rows)))


def git(folder, *args):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


def test_a_backend_hears_of_the_run_before_the_first_row_and_of_its_end_after_the_last(tmp_path):
    memory = Facts()
    with ld.Logger(memory, "r", log_dir=tmp_path, hparams={"a": 1}) as logger:
        for step in range(3):
            logger.log({"x": 1.0}, step)
    names = [call[0] for call in memory.calls]
    assert names == ["open", "run", "hparams", "start", "end", "close"]
    _, facts, rows = memory.calls[1]
    assert (rows, memory.calls[4]) == (0, ("end", "finished", 3))
    assert facts["run_id"] == logger.run_id
    assert (facts["name"], facts["incarnation"], facts["launcher"]) == ("r", 1, "solo")
    assert facts["devices_per_process"] == [len(jax.local_devices())]
    assert (facts["device_count"], facts["platform"]) == (len(jax.devices()), "cpu")
    assert facts["hosts"] == [facts["host"]]
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["versions"]["lerax_dist"] == ld.__version__


def test_the_journal_keeps_the_facts_and_a_run_that_fails_ends_as_failed(tmp_path):
    memory = Facts()
    with pytest.raises(KeyError), ld.Logger(memory, "r", log_dir=tmp_path):
        raise KeyError
    assert memory.calls[-2] == ("end", "failed", 0)
    first = json.loads((tmp_path / "r" / "journal.jsonl").read_text().splitlines()[0])
    facts = memory.calls[1][1]
    assert {name: first[name] for name in facts} == facts
    assert first["kind"] == "open"
    assert sys.executable.rsplit("/", 1)[-1] in first["command"] or "python" in first["command"]


def test_git_tells_the_commit_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_facts, "_GIT_TIMEOUT", 60.0)
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-b", "trunk")
    assert git_state(tmp_path) is None
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "notes.txt").write_text("not followed\n")
    clean = git_state(tmp_path)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tmp_path, text=True).strip()
    assert clean == {"commit": head, "branch": "trunk", "dirty": False}
    (tmp_path / "code.py").write_text("a = 2\n")
    assert git_state(tmp_path) == {"commit": head, "branch": "trunk", "dirty": True}


def test_no_branch_is_none():
    output = "# branch.oid 12ab\n# branch.head (detached)\n"
    assert parse_git_status(output) == {"commit": "12ab", "branch": None, "dirty": False}


def test_a_machine_without_git_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def facts_of(log_dir):
    memory = Facts()
    ld.Logger(memory, log_dir=log_dir).close()
    return memory.calls[1][1]


def test_only_packages_that_are_there_have_a_version(tmp_path):
    versions = facts_of(tmp_path)["versions"]
    assert {"python", "jax", "numpy", "lerax_dist"} <= set(versions)
    assert None not in versions.values()


def test_the_job_of_a_batch_system_is_named(tmp_path, monkeypatch):
    assert "slurm_job_id" not in facts_of(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert facts_of(tmp_path)["slurm_job_id"] == "77"
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("PBS_JOBID", "77.pbs")
    assert facts_of(tmp_path)["pbs_job_id"] == "77.pbs"


def test_a_total_needs_the_number_of_every_process():
    assert with_counts({}, [2, 3])["device_count"] == 5
    assert with_counts({}, [2, None])["device_count"] is None
