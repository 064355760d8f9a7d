"""docs/architecture.md names every folder of the package, and only files and names that exist."""

import re

import pytest

from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text()
# `lerax_dist/...`, `tests/...`, `docs/...`, or a file beside them.
PATHS = sorted(set(re.findall(r"`((?:lerax_dist|tests|docs)/[\w/.-]*|[\w.]+\.(?:md|toml))`", TEXT)))


def test_its_table_has_the_folders_of_the_package():
    named = re.findall(r"^\| `(lerax_dist/[\w/]*)` \|", TEXT, re.MULTILINE)
    folders = {path.parent for path in (ROOT / "lerax_dist").rglob("*.py")}
    assert sorted(named) == sorted(f"{folder.relative_to(ROOT)}/" for folder in folders)


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_it_names_is_there(path):
    assert (ROOT / path).exists()


def test_the_names_of_its_diagram_are_in_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "lerax_dist").rglob("*.py"))
    (diagram,) = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    names = set(re.findall(r"\b[A-Z]\w*[a-z][A-Z]\w*|\bAbstract\w+", diagram))
    names |= set(re.findall(r"`([A-Za-z_]\w*[A-Z]\w*|[A-Z]{2,}\w+|[a-z]+_[a-z_]+)`", TEXT))
    assert len(names) > 15
    missing = {name for name in names if not re.search(rf"\b{name}\b", code)}
    # The other two are in tests.
    assert missing - {"LAZY", "GOOD"} == set()


def test_files_that_the_code_names_are_there():
    """Of the package: `device/_pack.py`, or `_pack.py` for one in the same folder."""
    package = ROOT / "lerax_dist"
    for path in package.rglob("*.py"):
        names = re.findall(r"`([\w/]*_\w+\.py)`", path.read_text())
        for named in (name for name in names if not name.startswith("jax/")):
            places = [package / named, path.parent / named, ROOT / named]
            assert any(place.exists() for place in places), f"{path.name} names {named}"
