"""A run keeps its identity, also when one of its two files is lost or damaged."""

import json
import subprocess
import sys

import pytest

from lerax_dist.journal import Identity, take_identity
from tests.journal.journals import opened, row, write


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"run_id": "x"}'])
def test_the_journal_stands_in_for_the_file(tmp_path, content):
    rows = [row(step, a=1.0) for step in range(100)]
    write(tmp_path, [opened(run_id="one"), *rows, opened(run_id="one", incarnation=4), *rows])
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert take_identity(tmp_path, continues=True) == Identity("one", 5)
    assert json.loads((tmp_path / "run.json").read_text()) == {"run_id": "one", "incarnation": 5}
    assert take_identity(tmp_path, continues=True) == Identity("one", 6)


def test_a_new_run_gets_an_id_and_a_lost_one_counts_as_resumed(tmp_path):
    write(tmp_path, [])
    assert take_identity(tmp_path, continues=False).incarnation == 1
    (tmp_path / "run.json").unlink()
    assert take_identity(tmp_path, continues=True).incarnation == 2


def test_another_run_than_that_of_a_checkpoint_is_an_error(tmp_path):
    write(tmp_path, [opened(run_id="one")])
    with pytest.raises(ValueError, match="id two, but .* holds one with the id one"):
        take_identity(tmp_path, continues=True, known=Identity("two", 3))
    assert not (tmp_path / "run.json").exists()


TAKE = """
import os, sys
from pathlib import Path
from lerax_dist.journal import take_identity

os.getpid = lambda: 17  # in a container each incarnation may have the same
if sys.argv[2] == "killed":
    os.fsync = lambda fd: os._exit(9)
print(take_identity(Path(sys.argv[1]), continues=False).run_id)
"""


def test_a_process_that_was_killed_while_it_wrote_does_not_block_the_next(tmp_path):
    def take(how):
        command = [sys.executable, "-c", TAKE, str(tmp_path), how]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert take("killed").returncode == 9
    assert list(tmp_path.glob(".*.part"))
    taken = take("whole")
    assert taken.returncode == 0, taken.stderr
    assert json.loads((tmp_path / "run.json").read_text())["run_id"] == taken.stdout.strip()
    assert not list(tmp_path.glob(".*.part"))
