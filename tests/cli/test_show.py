"""What the report says, and that nothing of it is cut."""

import dataclasses
import json

from lerax_dist.cli._facts import Facts
from lerax_dist.cli._judge import judge
from lerax_dist.cli._print import report_text
from lerax_dist.cli._show import process_table, summary, verdict
from tests.cli.test_judge import VERSIONS, changed, good


def test_only_what_differs_has_a_column():
    heads, rows = process_table(good(2))
    assert heads == ["process", "host", "pid", "devices", "clock", "log folder"]
    assert rows[1] == ["1", "h1", "101", "2 gpu", "+2.0 ms ±1.0", "seen"]
    heads, rows = process_table(changed("processes", 2, versions=VERSIONS | {"jax": "0.9.0"}))
    assert heads[-1] == "jax"
    assert [row[-1] for row in rows] == ["0.10.2", "0.10.2", "0.9.0", "0.10.2"]
    told = dict(summary(changed("processes", 2, versions=VERSIONS | {"jax": "0.9.0"})))
    assert told["versions"] == "python 3.11.7, numpy 2.4.6, the same everywhere"


def test_what_is_wrong_is_in_capitals_in_its_row():
    _, rows = process_table(changed("folders", 1, seen=False))
    assert [row[-1] for row in rows] == ["writes", "NOT SEEN", "seen", "seen"]
    _, rows = process_table(changed("devices", 1, late=True))
    assert rows[1][3] == "NOT STARTED"


def test_without_a_terminal_a_fact_is_a_line():
    long = "x" * 300
    facts = changed("processes", 2, host=long, versions=VERSIONS | {"jax": "0.9.0"})
    lines = report_text(facts, as_json=False).split("\n")
    assert any(line.split()[:2] == ["2", long] for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert lines[-1] == "1 problem: a run would not log correctly here"
    assert "[" not in report_text(good(), as_json=False)  # neither colours nor markup


def test_what_was_not_reached_is_left_out():
    facts = Facts(timeout=5.0, trouble="process 1 of 2 did not arrive")
    assert report_text(facts, as_json=False).split("\n") == [
        "problem  process 1 of 2 did not arrive",
        "",
        "1 problem: a run would not log correctly here",
    ]
    report = json.loads(report_text(facts, as_json=True))
    assert (report["ok"], report["facts"]["processes"]) == (False, [])


def test_the_verdict():
    assert verdict(judge(good())) == "ok: a run would log correctly here"
    facts = dataclasses.replace(changed("clocks", 1, offset=9.0), trouble="gone")
    assert verdict(judge(facts)).startswith("2 problems")
