"""Runs in every state, written and killed by real processes."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.cli import main
from lerax_dist.cli._ls import describe, headline, show_age
from lerax_dist.journal import Event, Row, encode, read_ends
from tests.journal.journals import age

WORKER = Path(__file__).parent / "workers" / "run.py"


def listed(log_dir: Path, capsys) -> dict:
    capsys.readouterr()
    assert main(["ls", str(log_dir), "--json"]) == 0
    return {run["name"]: run for run in json.loads(capsys.readouterr().out)}


def write_finished(log_dir: Path, name: str = "done/a") -> None:
    with ld.Logger(ld.NoOpBackend(), name, log_dir=log_dir) as logger:
        for step in range(3):
            logger.log({"train/loss": step / 2}, step)


def write_journal(path: Path, records: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode(record, n) for n, record in enumerate(records)))


def row(step: int, **metrics: float) -> Row:
    return Row.of(1000.0 + step, step, None, {name: np.float64(x) for name, x in metrics.items()})


OPEN = Event(1000.0, "open", {"name": "r", "process_count": 8, "host": "h", "pid": 7})


def test_a_run_runs_and_is_then_interrupted(tmp_path, capsys):
    write_finished(tmp_path)
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), str(tmp_path), "live"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"written\n"
        running = listed(tmp_path, capsys)
        worker.kill()
    age(tmp_path / "live")
    killed = listed(tmp_path, capsys)
    assert running["live"]["state"] == "running"
    assert running["live"]["pid"] == worker.pid
    assert killed["live"]["state"] == "interrupted"
    for runs in (running, killed):
        live, done = runs["live"], runs["done/a"]
        assert (live["step"], live["rows"]) == (400, 5)
        assert (live["metric"], live["value"]) == ("episode/return", 40.0)
        assert 0 <= live["age"] < 60
        assert (done["state"], done["step"], done["rows"]) == ("finished", 2, 3)
        assert (done["metric"], done["value"]) == ("train/loss", 1.0)


def test_a_run_that_failed(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError):
        with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
            logger.log({"a": 1.0}, 0)
            raise ZeroDivisionError
    run = listed(tmp_path, capsys)["r"]
    assert (run["state"], run["rows"], run["metric"]) == ("failed", 1, None)


def test_asking_does_not_keep_a_logger_from_the_run(tmp_path, capsys):
    write_journal(tmp_path / "r" / "journal.jsonl", [OPEN, row(1, loss=2.0)])
    age(tmp_path / "r")
    assert listed(tmp_path, capsys)["r"]["state"] == "interrupted"
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path):
        assert listed(tmp_path, capsys)["r"]["state"] == "running"
    assert listed(tmp_path, capsys)["r"]["state"] == "finished"


def test_what_is_empty_or_damaged_is_said(tmp_path, capsys):
    write_journal(tmp_path / "damaged" / "journal.jsonl", [OPEN])
    damaged = tmp_path / "damaged" / "journal.jsonl"
    damaged.write_bytes(b"x" + damaged.read_bytes() + b'{"n": 3, "ti')
    write_journal(tmp_path / "empty" / "journal.jsonl", [])
    write_journal(tmp_path / "torn" / "journal.jsonl", [OPEN, row(3, loss=np.nan)])
    with (tmp_path / "torn" / "journal.jsonl").open("ab") as file:
        file.write(b'{"n": 2, "ti')
    age(tmp_path / "torn")
    runs = listed(tmp_path, capsys)
    assert runs["damaged"]["state"] == "damaged"
    assert runs["empty"]["state"] == "empty"
    torn = runs["torn"]
    assert (torn["state"], torn["step"], torn["value"]) == ("interrupted", 3, "NaN")


def test_a_large_journal_is_read_at_its_ends_only(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    rows = [row(step, loss=step / 7, **{f"m{i}": 0.1 for i in range(20)}) for step in range(20_000)]
    write_journal(path, [OPEN, *rows, Event(99.0, "close", {"state": "finished"})])
    size = path.stat().st_size
    read = []

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(descriptor, length, offset)

    pread = os.pread
    monkeypatch.setattr(os, "pread", counted)
    run = describe("r", read_ends(path), alive=True, now=30_000.0)
    assert sum(read) < 200_000 < size / 10
    assert (run.state, run.step, run.rows, run.age) == ("finished", 19_999, 20_000, 9001.0)
    assert (run.processes, run.host) == (8, "h")


def test_a_row_is_found_behind_events_that_are_long(tmp_path):
    path = tmp_path / "journal.jsonl"
    long = Event(1.0, "close", {"state": "failed", "failures": ["x" * 400_000]})
    rows = [row(step, loss=1.0) for step in range(5000)]
    write_journal(path, [OPEN, *rows, long])
    run = describe("r", read_ends(path), alive=True, now=0.0)
    assert (run.state, run.step, run.rows) == ("failed", 4999, 5000)


def test_rows_that_a_resume_has_superseded_are_not_the_last(tmp_path):
    path = tmp_path / "journal.jsonl"
    rows = [row(step, loss=step) for step in range(0, 100, 10)]
    write_journal(path, [OPEN, *rows, OPEN, Event(5.0, "resume", {"start_step": 40})])
    run = describe("r", read_ends(path), alive=True, now=0.0)
    assert (run.step, run.value, run.rows) == (30, 30.0, 4)


def test_a_journal_of_a_newer_format_is_named(tmp_path, capsys):
    line = encode(OPEN, 0).replace(b'"format":2', b'"format":3')
    body = line[: line.rindex(b',"crc"')] + b"}"
    (tmp_path / "journal.jsonl").write_bytes(b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body)))
    assert main(["ls", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "unreadable" in said.out and "format 3" in said.err


def test_the_headline():
    assert headline([row(0, **{"episode/return": 3.0, "loss": 1.0}), row(1, loss=0.5)]) == (
        "episode/return",
        3.0,
    )
    assert headline([row(0, **{"train/policy_loss": 2.0})]) == ("train/policy_loss", 2.0)
    assert headline([row(0, **{"loss/scale": 2.0})]) == (None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s ago"), (119, "119 s ago"), (600, "10 min ago"), (8000, "2 h ago"), (1e6, "12 d ago")],
)
def test_ages(seconds: float, text: str):
    assert show_age(seconds) == text


def test_the_table(tmp_path, capsys):
    write_finished(tmp_path)
    assert main(["ls", str(tmp_path)]) == 0
    heads, line = capsys.readouterr().out.splitlines()
    assert heads.split("  ")[0] == "run"
    assert line.split()[:2] == ["done/a", "finished"]
    assert line.endswith("train/loss 1")


def test_runs_are_listed_by_the_time_of_their_files_and_names_cannot_steer_a_terminal(
    tmp_path, capsys
):
    # The clock of one host is a day behind that of the other: its rows seem old.
    for age_of_row, order, name in ((86400.0, 300, "behind"), (0.0, 200, "ahead\x1b[2J\nx")):
        path = tmp_path / name / "journal.jsonl"
        write_journal(path, [OPEN, Row.of(1.8e9 - age_of_row, 1, None, {"loss": 1.0})])
        os.utime(path, (1.8e9 + order, 1.8e9 + order))
    assert main(["ls", str(tmp_path)]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ahead?[2J", "behind"]


def test_nothing_there(tmp_path, capsys):
    assert main(["ls", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "no run in" in said.err
    assert main(["ls", str(tmp_path / "none")]) == 1
    assert "is not a folder" in capsys.readouterr().err
