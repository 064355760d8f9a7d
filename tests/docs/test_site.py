"""The site builds without a warning, has every public name, and loads nothing from elsewhere."""

import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import lerax_dist
from tests.docs.blocks import ROOT

# What `lerax_dist/__init__.py` re-exports; the folders of the package are not part of it.
NAMES = sorted(
    name
    for name, value in vars(lerax_dist).items()
    if not name.startswith("_") and not inspect.ismodule(value)
)
# Attributes by which a browser fetches something as soon as a page is opened.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


class Page(HTMLParser):
    """What a page fetches, and the places in it that can be linked."""

    def __init__(self, path):
        super().__init__()
        self.fetched, self.ids = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag in FETCHED and given.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(given.get(FETCHED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}


def test_every_public_name_is_in_the_reference(site):
    ids = set().union(*(page.ids for path, page in site.items() if path.startswith("reference/")))
    assert [name for name in NAMES if f"lerax_dist.{name}" not in ids] == []
    # Also what the loggers share, which is written in a class that is not public.
    assert {"lerax_dist.Logger.close", "lerax_dist.LoggingCallback.state"} <= ids


def test_pages_are_readable_without_a_network(site):
    assert len(site) > 10
    for path, page in site.items():
        outside = [url for url in page.fetched if re.match(r"(https?:)?//", url)]
        assert outside == [], path


def test_the_parts_of_pages_that_others_link_are_there(site):
    for page in (ROOT / "docs").rglob("*.md"):
        for target, part in re.findall(r"\]\(([\w/.-]+)\.md#([\w-]+)\)", page.read_text()):
            assert part in site[f"{target}.html"].ids, (page.name, target, part)
