"""Prints reports and tables: within a terminal's width, or, elsewhere, plain and never wrapped."""

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lerax_dist.cli._facts import Facts
from lerax_dist.cli._finding import Finding
from lerax_dist.cli._judge import is_ok, judge
from lerax_dist.cli._show import as_object, process_table, summary, verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STYLES = {"problem": "bold red", "warning": "yellow", "hint": "cyan"}
# Words in capitals are what has gone wrong.
_WRONG = ("NOT SEEN", "NOT STARTED", "FAILED", "CANNOT WRITE", "interrupted", "failed", "damaged")
_UNWRAPPED = 10_000


def print_report(facts: Facts, *, as_json: bool) -> None:
    """Print what the doctor has found."""
    findings = judge(facts)
    if as_json:
        text = json.dumps(as_object(facts, findings)) + "\n"
    elif (width := _terminal_width()) is not None:
        _report(_terminal(width), facts, findings)
        return
    else:
        text = report_text(facts, as_json=False) + "\n"
    _write(text)


def report_text(facts: Facts, *, as_json: bool) -> str:
    """The report as text for no terminal."""
    findings = judge(facts)
    if as_json:
        return json.dumps(as_object(facts, findings))
    console, text = _plain()
    _report(console, facts, findings)
    return _stripped(text)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, whose first column is names."""
    width = _terminal_width()
    if width is not None:
        _terminal(width).print(_table(heads, rows))
        return
    console, text = _plain()
    console.print(_table(heads, rows))
    _write(_stripped(text) + "\n")


def _report(console: "Console", facts: Facts, findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    if facts.processes:
        console.print(_table(*process_table(facts)))
        console.print()
    lines = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    lines.add_column(no_wrap=True, style="bold")
    lines.add_column(overflow="fold")
    for name, value in summary(facts):
        lines.add_row(Text(name), Text(value))
    console.print(lines)
    if facts.processes:
        console.print()
    told = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    told.add_column(no_wrap=True)
    told.add_column(overflow="fold")
    for finding in findings:
        told.add_row(Text(finding.level, _STYLES[finding.level]), Text(str(finding)))
    if findings:
        console.print(told)
        console.print()
    console.print(Text(verdict(findings), "bold green" if is_ok(findings) else "bold red"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        numbers = place and all(row[place].replace(",", "").isdecimal() for row in rows)
        # Words that may be long fold; nothing is ever cut.
        table.add_column(Text(head), overflow="fold", justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(Text(cell, "bold red" if cell in _WRONG else "") for cell in row))
    return table


def _terminal(width: int) -> "Console":
    from rich.console import Console

    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def _plain() -> "tuple[Console, io.StringIO]":
    from rich.console import Console

    text = io.StringIO()
    console = Console(
        file=text, width=_UNWRAPPED, color_system=None, force_terminal=False, highlight=False
    )
    return console, text


def _stripped(text: io.StringIO) -> str:
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def _terminal_width() -> int | None:
    """Columns of the terminal that sees the output; None if there is none."""
    # Open MPI gives its processes a pseudo-terminal in any case; one that nobody sees has no size.
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
