"""What the README shows is run as it stands there."""

import re
from pathlib import Path

import pytest

from tests.multiprocess.launch import launch
from tests.readers import event_rows, journal_rows

README = (Path(__file__).parents[1] / "README.md").read_text()


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_program_runs_as_it_is_pasted(tmp_path, processes):
    program = next(block for block in python_blocks() if "ld.Logger(" in block)
    (tmp_path / "train.py").write_text(program)
    launch(
        tmp_path / "train.py",
        processes=processes,
        launcher="solo" if processes == 1 else "openmpi",
        cwd=tmp_path,
        check=False,
    )
    (run_dir,) = (tmp_path / "logs").iterdir()
    rows = journal_rows(run_dir)
    assert [step for step, _ in rows] == list(range(200))
    assert rows[-1][1]["train/loss"] < 1e-6 < rows[0][1]["train/loss"]
    assert [step for step, _ in event_rows(run_dir)] == list(range(200))


def test_every_block_is_python():
    for block in python_blocks():
        compile(block, "README.md", "exec")


def test_every_file_that_it_links_is_there():
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
