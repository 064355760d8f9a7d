"""The code blocks of a Markdown text, and which of them are run."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import final

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<why>[^>]*) -->\n *)?```(?P<info>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
# The site shows a file in place of this line.
_SNIPPET = re.compile(r'--8<-- "(.*?)"\n')


@final
@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        place: file and line, for messages.
        language: e.g. "python"; empty for output or a picture of a folder.
        title: name of the file to save it as; empty if it is a piece of a program.
        code: its text.
        left_out: why it cannot run here; empty if it runs.
    """

    place: str
    language: str
    title: str
    code: str
    left_out: str


def blocks_of(text: str, place: str) -> list[Block]:
    """All blocks of a text, in order. `<!-- not run: WHY -->` before one leaves it out."""
    found = []
    for match in _BLOCK.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        indent = len(match["indent"])
        code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
        code = _SNIPPET.sub(lambda found: (ROOT / found[1]).read_text(), code)
        line = text[: match.start("code")].count("\n")
        why = (match["why"] or "").removeprefix("not run: ").strip()
        assert not match["why"] or match["why"].startswith("not run: "), match["why"]
        found.append(Block(f"{place}:{line}", language, title[1] if title else "", code, why))
    return found


def page_blocks(page: Path) -> list[Block]:
    return blocks_of(page.read_text(), str(page.relative_to(ROOT)))
