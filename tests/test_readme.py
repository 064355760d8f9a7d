"""The program of the README runs as it is; tests/docs runs its other blocks."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import page_blocks
from tests.multiprocess.launch import launch
from tests.readers import event_rows, journal_rows

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_program_runs_as_it_is_pasted(tmp_path, processes):
    (program,) = (block for block in page_blocks(README) if block.title)
    (tmp_path / program.title).write_text(program.code)
    launch(
        tmp_path / program.title,
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


def test_it_has_at_most_three_screens_and_begins_with_the_two_commands():
    assert len(README.read_text().splitlines()) <= 120
    first = page_blocks(README)[0].code.splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]


def test_its_commands_are_there():
    makefile = (ROOT / "Makefile").read_text()
    text = README.read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"sbatch (\S+\.sbatch)", README.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_links_is_there(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target


def test_both_link_the_architecture():
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/architecture.md)" in (ROOT / page).read_text()
