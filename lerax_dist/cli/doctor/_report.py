"""The report of the doctor, as text or as JSON."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lerax_dist.backends.console._view import printable
from lerax_dist.cli._print import as_text, make_table, print_drawn, print_plain
from lerax_dist.cli.doctor import CHECKS
from lerax_dist.cli.doctor._check import AbstractCheck, Finding

_STYLES = {"problem": "bold red", "warning": "yellow", "hint": "cyan"}


@final
@dataclass
class Report:
    """What process 0 has collected."""

    timeout: float  # of each stage, in seconds
    hosts: Sequence[str] = ()  # of each process
    facts: dict[str, Sequence[Any]] = field(default_factory=dict)  # by `key` of each check reached
    trouble: str = ""  # error that ended the examination early, with how to fix it

    @property
    def findings(self) -> list[Finding]:
        """All findings, problems first."""
        found = [Finding("problem", self.trouble, "")] if self.trouble else []
        for check, facts in self._reached():
            found += check.judge(facts, self.hosts)
        return sorted(found, key=lambda finding: list(_STYLES).index(finding.level))

    @property
    def is_ok(self) -> bool:
        """Whether a run would log correctly: there are no problems."""
        return all(finding.level != "problem" for finding in self.findings)

    def text(self, *, as_json: bool) -> str:
        """The report for an output that is not a terminal."""
        return json.dumps(self._as_object()) if as_json else as_text(self._draw)

    def print(self, *, as_json: bool) -> None:
        """Print the report."""
        if as_json:
            print_plain(self.text(as_json=True))
        else:
            print_drawn(self._draw)

    def _as_object(self) -> dict[str, Any]:
        by_level: dict[str, list[dict[str, str]]] = {f"{level}s": [] for level in _STYLES}
        for finding in self.findings:
            by_level[f"{finding.level}s"].append({"what": finding.what, "fix": finding.fix})
        facts = {
            "timeout": self.timeout,
            **{each.key: [*map(as_json_value, self.facts.get(each.key, ()))] for each in CHECKS},
            "trouble": self.trouble,
        }
        return {"ok": self.is_ok, **by_level, "facts": facts}

    def _reached(self) -> Iterator[tuple[AbstractCheck[Any], Sequence[Any]]]:
        return ((check, self.facts[check.key]) for check in CHECKS if self.facts.get(check.key))

    def _draw(self, console: Console) -> None:
        columns: dict[str, list[str]] = {}
        lines: list[tuple[Text, str]] = []
        for check, facts in self._reached():
            for name, shown in check.show(facts):
                if isinstance(shown, str):
                    lines.append((Text(name, "bold"), shown))
                else:
                    columns[name] = shown
        if columns:
            console.print(make_table([*columns], [*zip(*columns.values(), strict=True)]))
            console.print()
        findings = self.findings
        styled = [(Text(one.level, _STYLES[one.level]), str(one)) for one in findings]
        for pairs in (lines, styled):
            if pairs:
                console.print(_table_of(pairs))
                console.print()
        count = sum(finding.level == "problem" for finding in findings)
        if count:
            problems = f"{count} {'problem' if count == 1 else 'problems'}"
            console.print(Text(f"{problems}: a run would not log correctly here", "bold red"))
        else:
            console.print(Text("ok: a run would log correctly here", "bold green"))


def as_json_value(fact: Any) -> Any:
    """A check's fact as a JSON value."""
    return asdict(fact) if is_dataclass(fact) and not isinstance(fact, type) else fact


@contextlib.contextmanager
def stdout_for_report() -> Iterator[None]:
    """Keep the standard output for the report: libraries below Python print there, e.g. Gloo.

    While the block runs, `sys.stdout` is the output, and what is written to its file descriptor
    otherwise is dropped. The error output is unaffected.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        yield  # not a file, so no library writes to it
        return
    sys.stdout.flush()
    before = sys.stdout
    kept = os.dup(descriptor)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
    try:
        with os.fdopen(kept, "w", encoding=before.encoding, closefd=False) as sys.stdout:
            yield
    finally:
        sys.stdout = before
        os.dup2(kept, descriptor)
        os.close(kept)


def _table_of(pairs: Sequence[tuple[Text, str]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text("\n".join(printable(text, None) for text in value.split("\n"))))
    return table
