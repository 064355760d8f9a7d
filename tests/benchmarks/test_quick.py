"""The benchmarks run, and their table has the shape that the README shows. No time is judged."""

import json
import subprocess
import sys

from benchmarks._plots import plot
from benchmarks._result import Result
from benchmarks._rounds import added, interleaved, share
from benchmarks._table import table


def test_a_quick_run_writes_table_numbers_and_plots(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [line[:4] for line in done.stderr.splitlines() if line[:1] == "["] == [
        "[1/4",
        "[2/4",
        "[3/4",
        "[4/4",
    ]
    raw = json.loads((tmp_path / "results.json").read_text())["results"]
    seen = {(result["suite"], result["variant"], result["quantity"]) for result in raw}
    for variant in ("no logging, again", "LoggingCallback, 10 a transfer", "Logger"):
        assert ("loops", variant, "share of step") in seen
    assert ("writers", "tensorboardX add_scalar", "sustained") in seen
    assert ("reading", "read_run", "takes") in seen
    counts = {result["quantity"]: result["median"] for result in raw if result["suite"] == "counts"}
    assert (counts["collective operands"], counts["host callbacks"]) == (1, 1)
    lines = (tmp_path / "results.md").read_text().splitlines()
    heads = [line for line in lines if line.startswith("| loop |")]
    assert heads and all("share of step (%)" in head for head in heads)
    assert (tmp_path / "share_of_step.png").read_bytes().startswith(b"\x89PNG")


def test_variants_take_turns_and_the_first_round_does_not_count():
    ran = []
    variants = {n: lambda n=n: ran.append(n) or float(len(ran)) for n in "abc"}
    seconds = interleaved(variants, rounds=20)
    turns = ["".join(ran[start : start + 3]) for start in range(0, 63, 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    # In any order, so that what comes before a variant is now one and now the other.
    assert len(set(turns)) == 6
    for name, took in seconds.items():
        assert took == [place + 1.0 for place in range(3, 63) if ran[place] == name]


def test_what_a_variant_adds_is_compared_within_a_round():
    seconds = {"base": [1.0, 2.0, 4.0], "slow": [1.5, 3.0, 6.0]}
    assert share(seconds, "slow", "base") == {"median": 50.0, "low": 50.0, "high": 50.0}
    assert added(seconds, "slow", "base")["median"] == 1000.0


def test_what_does_not_run_is_shown_as_such(tmp_path):
    results = [
        Result("rivals", {"devices": 1}, "a", "training thread", "us a call", 12.5, 11.0, 14.25),
        Result("rivals", {"devices": 1}, "b", "does not run", "", "not installed"),
    ]
    text = table(results, {"machine": "2 cores"})
    assert "| devices | variant | training thread (us a call) | does not run |" in text
    assert "| 1 | a | 12.5 [11, 14.2] |  |" in text
    assert "| 1 | b |  | not installed |" in text
    assert [path.name for path in plot(results, tmp_path)] == ["training_thread.png"]
