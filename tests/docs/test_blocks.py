"""Every code block of the README, of docs/ and of the docstrings runs, or says why it cannot."""

import ast
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks_of, page_blocks
from tests.multiprocess.launch import environment
from tests.readers import event_images, journal_rows

RUN_BLOCKS = Path(__file__).parent / "run_blocks.py"
BIN = Path(sys.executable).parent
LANGUAGES = {"python", "sh", "text", "yaml"}
DOCSTRINGS = "docstrings"
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def start(command, folder, devices=1):
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(devices, {"PATH": path, "WANDB_MODE": "offline"}),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def docstring_blocks():
    for path in sorted((ROOT / "lerax_dist").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = getattr(node, "name", "the module")
                text = ast.get_docstring(node) or ""
                yield from blocks_of(text, f"{path.relative_to(ROOT)} {name}")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of each page, and what of its Python has failed there."""
    pages = {name: page_blocks(page) for name, page in zip(IDS, PAGES, strict=True)}
    pages[DOCSTRINGS] = list(docstring_blocks())
    base = tmp_path_factory.mktemp("pages")
    work, folders = [], {}
    for name, blocks in pages.items():
        folders[name] = base / name
        folders[name].mkdir(parents=True)
        blocks = [b for b in blocks if b.language == "python" and not (b.title or b.left_out)]
        pieces = [[block.place, block.code] for block in blocks]
        work.append([str(folders[name]), name == DOCSTRINGS, pieces])
    (base / "work.json").write_text(json.dumps(work))
    failed = json.loads(start([sys.executable, RUN_BLOCKS, base / "work.json"], base, devices=2))
    return {name: (folder, failed[str(folder)]) for name, folder in folders.items()}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_blocks_of_a_page_run(ran, page):
    """Python first, in one program; what has a title is saved as a file; then the shell's."""
    folder, failed = ran[str(page.relative_to(ROOT))]
    assert not failed, "\n".join(failed)
    blocks = [block for block in page_blocks(page) if not block.left_out]
    for block in blocks:
        if block.title:
            (folder / block.title).write_text(block.code)
    for block in blocks:
        if block.language == "sh":
            start(["bash", "-eo", "pipefail", "-c", block.code], folder)


def test_the_examples_of_docstrings_run(ran):
    _, failed = ran[DOCSTRINGS]
    assert not failed, "\n".join(failed)
    blocks = list(docstring_blocks())
    assert len(blocks) >= 19
    assert all(block.language == "python" and not block.left_out for block in blocks)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_what_is_left_out_is_still_a_program(page):
    for block in page_blocks(page):
        assert block.language in LANGUAGES, block.place
        if block.language == "python":
            compile(block.code, block.place, "exec")
        elif block.language == "sh":
            subprocess.run(["bash", "-n", "-c", block.code], check=True, timeout=20)


def test_every_metric_of_a_row_is_in_the_table(ran):
    folder, _ = ran["docs/metrics.md"]
    page = (ROOT / "docs" / "metrics.md").read_text()
    names = {name for _, row in journal_rows(folder / "logs" / "known") for name in row}
    assert "time/steps_per_second" in names and "episode/return_std" in names
    for name in names - {"train/loss"}:
        assert f"`{name}`" in page, name


def test_the_video_of_the_page_is_in_its_event_file(ran):
    folder, _ = ran["docs/recipes.md"]
    shown = event_images(folder / "logs" / "with-video")
    assert [tag for tag, *_ in shown] == ["eval/video", "eval/video"]


def test_the_backend_of_the_page_has_every_row(ran):
    folder, _ = ran["docs/backend.md"]
    rows = "SELECT step, value FROM metrics WHERE name = 'train/loss' ORDER BY step"
    with contextlib.closing(sqlite3.connect(folder / "logs" / "runs.sqlite")) as base:
        found = base.execute(rows).fetchall()
    assert [step for step, _ in found] == list(range(100))
    assert found[0][1] == 9.0 and found[-1][1] < 1e-6


def test_the_first_program_of_the_site_is_that_of_the_readme():
    readme, site = (
        [block.code for block in page_blocks(page) if block.title == "train.py"]
        for page in (ROOT / "README.md", ROOT / "docs" / "index.md")
    )
    assert readme == site and len(site) == 1


def test_every_example_is_in_the_table_of_the_first_page():
    page = (ROOT / "docs" / "index.md").read_text()
    files = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert {name for name in files if f"| `{name}` |" not in page} == set()
