"""The report as a whole: its order, its keys, and that nothing of it is cut."""

import json
from typing import Any

from lerax_dist.cli.doctor import CHECKS
from lerax_dist.cli.doctor._check import Finding
from lerax_dist.cli.doctor._report import Report
from tests.cli.doctor.test_checks import GOOD, HOSTS, VERSIONS, changed

HINT = {"level": "hint", "what": "slow", "fix": "install it"}
WARNING = {"level": "warning", "what": "offline", "fix": "log in"}


def report(trouble: str = "", **facts: Any) -> Report:
    """The report of a good launch, but for the facts given."""
    return Report(30.0, HOSTS, GOOD | facts, trouble)


def test_a_good_launch():
    good = report()
    assert (good.findings, good.is_ok) == ([], True)
    lines = good.text(as_json=False).split("\n")
    assert lines[0].split() == ["process", "host", "pid", "clock", "log", "folder", "devices"]
    assert lines[2].split() == ["1", "h1", "101", "+2.0", "ms", "±1.0", "seen", "2", "gpu"]
    assert lines[-1] == "ok: a run would log correctly here"
    assert "[" not in "".join(lines)  # neither colors nor markup


def test_problems_come_first_and_an_early_end_is_one():
    found = report(
        "process 3 did not arrive",
        clocks=changed("clocks", 1, offset=9.0),
        backends=[{"A": [HINT], "B": [WARNING]}],
    )
    levels = [finding.level for finding in found.findings]
    assert levels == ["problem", "problem", "warning", "hint"]
    assert str(found.findings[0]) == "process 3 did not arrive"
    assert not found.is_ok
    assert found.text(as_json=False).endswith("\n2 problems: a run would not log correctly here")


def test_warnings_and_hints_are_no_problem():
    found = report(backends=[{"A": [HINT], "B": [WARNING]}])
    assert found.is_ok
    lines = found.text(as_json=False).split("\n")
    assert "warning  offline; fix: log in" in lines
    assert "hint     slow; fix: install it" in lines


def test_a_finding_is_one_line_with_its_fix():
    assert str(Finding("problem", "it fails", "repair it")) == "it fails; fix: repair it"
    assert str(Finding("problem", "it fails", "")) == "it fails"


def test_without_a_terminal_a_process_is_a_line():
    long = "x" * 300
    found = report(
        processes=changed("processes", 2, host=long),
        versions=[VERSIONS, VERSIONS, VERSIONS | {"jax": "0.9.0"}, VERSIONS],
    )
    lines = found.text(as_json=False).split("\n")
    assert any(line.split()[:2] == ["2", long] for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert lines[-1] == "1 problem: a run would not log correctly here"


def test_the_json_has_the_facts_of_every_check():
    found = json.loads(report(backends=[{"B": [WARNING]}]).text(as_json=True))
    assert (found["ok"], found["problems"], found["hints"]) == (True, [], [])
    assert found["warnings"] == [{"what": "offline", "fix": "log in"}]
    keys = ["timeout", *(check.key for check in CHECKS), "trouble"]
    assert list(found["facts"]) == keys
    assert found["facts"]["clocks"][1] == {"offset": 0.002, "bound": 0.001}
    assert found["facts"]["versions"][1] == VERSIONS


def test_what_was_not_reached_is_left_out():
    early = Report(5.0, trouble="process 1 of 2 did not arrive")
    assert early.text(as_json=False).split("\n") == [
        "problem  process 1 of 2 did not arrive",
        "",
        "1 problem: a run would not log correctly here",
    ]
    found = json.loads(early.text(as_json=True))
    assert (found["ok"], found["facts"]["processes"]) == (False, [])
