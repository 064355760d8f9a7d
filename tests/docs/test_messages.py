"""The messages that docs/troubleshooting.md explains are those of the code."""

import ast
import re

import pytest

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
# What the page writes for a value that the message fills in.
VALUE = re.compile(r"\b[XYZN]\b")


def quoted_messages():
    """The first cell of each row of the tables, without their heads."""
    cells = re.findall(r"^\| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    return [cell for cell in cells if cell not in ("the doctor says", "message")]


def texts_of(path):
    """The strings of a file; a value that is filled in is a zero byte."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def texts():
    paths = (ROOT / "lerax_dist").rglob("*.py")
    return [text for path in paths for text in texts_of(path)]


def test_the_page_explains_messages():
    assert len(quoted_messages()) > 25


@pytest.mark.parametrize("message", quoted_messages())
def test_a_message_is_in_the_code(texts, message):
    wanted = "\0".join(VALUE.split(message)).strip("\0 ")
    # Several values may be filled in where the page shows one.
    pattern = re.compile(".*\0.*".join(map(re.escape, wanted.split("\0"))), re.DOTALL)
    assert any(pattern.search(text) for text in texts), message
