"""Every code block of the README, of docs/ and of the docstrings runs, or says why it cannot."""

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks_of, page_blocks
from tests.multiprocess.launch import environment

RUN_PAGE = Path(__file__).parent / "run_page.py"
BIN = Path(sys.executable).parent
LANGUAGES = {"", "python", "sh", "yaml", "json", "toml"}
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def start(command, tmp_path, devices=1):
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(devices, {"PATH": path, "WANDB_MODE": "offline"}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def run_python(pieces, tmp_path):
    if pieces:
        page = tmp_path / "page.json"
        page.write_text(json.dumps(pieces))
        start([sys.executable, str(RUN_PAGE), str(page)], tmp_path, devices=2)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_blocks_of_a_page_run_in_their_order(page, tmp_path):
    """Python first, in one program; what has a title is saved as a file; then the shell's."""
    blocks = [block for block in page_blocks(page) if not block.left_out]
    assert {block.language for block in blocks} <= LANGUAGES
    for block in blocks:
        if block.title:
            (tmp_path / block.title).write_text(block.code)
    python = [b for b in blocks if b.language == "python" and not b.title]
    run_python([(b.place, b.code, False) for b in python], tmp_path)
    for block in blocks:
        if block.language == "sh":
            start(["bash", "-eo", "pipefail", "-c", block.code], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_what_is_left_out_is_still_a_program(page):
    for block in page_blocks(page):
        if block.language == "python":
            compile(block.code, block.place, "exec")
        elif block.language == "sh":
            subprocess.run(["bash", "-n", "-c", block.code], check=True, timeout=20)


def docstring_blocks():
    for path in sorted((ROOT / "lerax_dist").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
                name = getattr(node, "name", "the module")
                yield from blocks_of(text, f"{path.relative_to(ROOT)} {name}")


def test_the_examples_of_docstrings_run(tmp_path):
    blocks = list(docstring_blocks())
    assert len(blocks) > 10
    assert all(block.language == "python" and not block.left_out for block in blocks)
    run_python([(block.place, block.code, True) for block in blocks], tmp_path)
