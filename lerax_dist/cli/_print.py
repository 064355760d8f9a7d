"""Prints tables and text: within a terminal's width, or, elsewhere, plain and never wrapped."""

import io
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lerax_dist.backends.console._view import printable

# Cells that show what is wrong: states of runs, and the doctor's cells in capitals.
_WRONG = ("NOT SEEN", "NOT STARTED", "FAILED", "CANNOT WRITE", "interrupted", "failed", "damaged")
# Columns; no line is longer.
_UNWRAPPED = 10_000


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, whose first column is names."""
    print_drawn(lambda console: console.print(make_table(heads, rows)))


def make_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table, whose first column is names. Long cells fold; nothing is cut."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, head in enumerate(heads):
        numbers = i and all(row[i].replace(",", "").isdecimal() for row in rows)
        table.add_column(Text(head), overflow="fold", justify="right" if numbers else "left")
    for row in rows:
        styles = ("bold red" if cell in _WRONG else "" for cell in row)
        table.add_row(*map(Text, map(printable, row), styles))
    return table


def print_drawn(draw: Callable[[Console], None]) -> None:
    """Print what is drawn on a console of Rich, as the output can show it."""
    width = _terminal_width()
    if width is None or not (sys.stdout.encoding or "").lower().startswith("utf"):
        print_plain(as_text(draw, width or _UNWRAPPED))
    else:
        draw(Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False))


def as_text(draw: Callable[[Console], None], width: int = _UNWRAPPED) -> str:
    """What is drawn on a console of Rich, without colors, as plain lines."""
    text = io.StringIO()
    draw(Console(file=text, width=width, color_system=None, highlight=False))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def print_plain(text: str) -> None:
    """Print text in the output's encoding; characters that it lacks are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    text = _without_controls(text)
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """Print text on the error output, which escapes what its encoding lacks."""
    print(_without_controls(text), file=sys.stderr, flush=True)


def _without_controls(text: str) -> str:
    return "\n".join(printable(line, None) for line in text.split("\n"))


def _terminal_width() -> int | None:
    """Columns of the terminal that shows the output; `None` if it goes elsewhere."""
    # Open MPI gives its processes a pseudo-terminal in any case; one that is not shown has no size.
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None
