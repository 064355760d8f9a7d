"""Whatever is shown: no control characters, any encoding, any width, bounded, beside bars."""

import io
import json
import math
import os
import sys
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import lerax_dist as ld
from lerax_dist._failures import Failures
from lerax_dist.backends.console._draw import screen
from lerax_dist.backends.console._live import LiveDisplay, _Stream, plain_lines
from lerax_dist.backends.console._plain import format_hparams, format_row
from lerax_dist.backends.console._view import RunView
from lerax_dist.cli import main
from lerax_dist.cli._compare import compare
from lerax_dist.cli._print import print_drawn, print_error, print_table
from tests.backends.console.terminal import Terminal, python

ODD = [
    "\x1b[2Jclear",
    "a[b]",
    "[red]x",
    "日本語/損失",
    "\u202eright",
    "y" * 5000,
    "/",
    "\r\n",
    "\x9bm",
]


def view_of(names: list[str]) -> RunView:
    view = RunView("run \x1b]0;title\x07 💥", "a[b]", 0.0)
    view.facts = {"launcher": "slurm", "process_count": 4, "device_count": 8, "host": "h\x07"}
    view.notes, view.state = ["a note\n" * 9, "\x1b[31m"], "running"
    view.progress.begin(10**6, 0.0)
    for i in range(9):
        value = math.nan if i % 4 == 0 else (-10.0) ** (40 * i)
        view.add(dict.fromkeys(names, value), 1000 * i, float(i))
    return view


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13, 21, 34, 55, 79, 80, 90, 144, 1000, 10_000])
def test_a_screen_fits_any_window(width):
    for names in ([], ["loss"], [*ODD, *(f"g{i}/m{j}" for i in range(5) for j in range(9))]):
        view = view_of(names)
        for height in (None, 1, 2, 7, 24):
            for drawn in (
                screen(view, 31.0, width, height),
                compare([(view, 31.0), (view, 40.0)], "a[b]", width, height),
            ):
                for line in plain_lines(drawn, width, height):
                    assert cell_len(line) <= width and line.isprintable()


def test_lines_have_no_control_characters_and_an_end():
    view = view_of(ODD)
    row = format_row(view, view.latest, ["*"], 9.0)
    assert row.isprintable() and len(row) < 2000
    line = format_hparams({**dict.fromkeys(ODD, "\x1b[31m"), "long": "x" * 15_000_000})
    assert line.isprintable() and len(line) < 2000 and "(15,000,000 characters)" in line
    many = format_hparams({f"name{i}": i for i in range(100_000)})
    assert len(many) < 10_000 and many.endswith("+99800 more")


def test_the_live_display_bounds_hyperparameters(tmp_path):
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True, legacy_windows=False)
    display = LiveDisplay(lambda width, height: "", console)
    display.print_hparams({"long": "x" * 15_000_000, **{f"name{i}": i for i in range(10_000)}})
    assert len(file.getvalue()) < 20_000 and "9801 more" in file.getvalue()


@pytest.mark.parametrize("name", ["a[b]", "*", "a?", "[!x]", "[", "[]"])
def test_a_name_is_taken_as_it_is_before_it_is_a_pattern(tmp_path, capsys, name):
    console = ld.ConsoleBackend(metrics=[name])
    with ld.Logger(console, "r", log_dir=tmp_path) as logger:
        logger.log({name: 1.0}, 0)
    assert f"{name}=1" in capsys.readouterr().out
    directory = str(logger.run_dir)
    assert main(["watch", "--once", "--chart", name, directory]) == 0
    shown = capsys.readouterr().out
    assert "┤" in shown and shown.count(name) == 2  # In the table, and above the chart.
    assert main(["watch", directory, "--export", str(tmp_path / "rows.csv")]) == 0
    assert name in (tmp_path / "rows.csv").read_text().splitlines()[0]


@pytest.fixture
def odd_runs(tmp_path):
    for number, name in enumerate(ODD):
        with ld.Logger(ld.NoOpBackend(), f"ü [{number}] 💥", log_dir=tmp_path) as logger:
            logger.log({name + "loss": 1.0}, 0)
    (tmp_path / "\x1b[31mbad\udcff").mkdir()
    (tmp_path / "\x1b[31mbad\udcff" / "journal.jsonl").mkdir()
    (tmp_path / "\x1b[32mold").mkdir()
    (tmp_path / "\x1b[32mold" / "journal.jsonl").write_text("")
    return tmp_path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_commands_print_in_any_encoding_without_control_characters(odd_runs, monkeypatch, encoding):
    runs = sorted(str(path) for path in odd_runs.iterdir() if "💥" in path.name)
    for arguments in (
        ["ls", str(odd_runs)],
        ["ls", str(odd_runs), "--json"],
        ["ls", str(odd_runs / "\x1b[35mnothing")],
        ["watch", "--once", *runs],
        ["watch", "--once", runs[0]],
        ["watch", "--once", str(odd_runs / "\x1b[35mnothing")],
        ["replay", str(odd_runs / "\x1b[35mnothing"), "--to", "jsonl"],
    ):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        streams[1].reconfigure(errors="backslashreplace")
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        main(arguments)
        monkeypatch.undo()
        for stream in streams:
            stream.flush()
            shown = stream.buffer.getvalue().decode(encoding)  # pyright: ignore
            assert all(line.isprintable() for line in shown.split("\n")), shown
            if "--json" in arguments and stream is streams[0]:
                assert len(json.loads(shown)) == len(ODD) + 1


@pytest.mark.parametrize("columns", [1, 2, 7, 20, 80, 500])
def test_a_table_fits_a_terminal_of_any_width_and_encoding(monkeypatch, columns):
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    for encoding in ("latin-1", "utf-8"):
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        out.fileno = lambda: 1
        monkeypatch.setattr(sys, "stdout", out)
        print_table(["run", "state"], [[name, "failed"] for name in ODD])
        print_drawn(lambda console: console.print("x" * 100))
        monkeypatch.undo()
        out.flush()
        assert b"\x1b[2J" not in out.buffer.getvalue()  # pyright: ignore


def test_errors_have_no_control_characters(capsys):
    print_error("cannot read \x1b[31m\x9b\r\nx")
    assert capsys.readouterr().err == "cannot read ?[31m? \nx\n"
    with pytest.warns(ld.LoggingWarning) as shown:
        Failures().record("a", "b\x1b[31m")
    assert str(shown[0].message) == "a: b?[31m"


# What a program writes, what is above the display then, and what is below it.
PRINTED: list[tuple[list[str], list[str], list[str]]] = [
    (["one\ntwo", " more\n"], ["one", "two more"], []),
    (["\n", "x\n"], ["", "x"], []),
    (["\r 5%", "\r10%   "], [], ["10%   "]),
    (["\r 5%", "print\n", "\r10%"], ["print"], ["10%"]),
    (["\r99%", "\n", "after\n"], ["99%", "after"], []),
    # Two bars; the inner one is on the second line, and the cursor comes back to the first.
    (["\router", "\n", "\rinner", "\x1b[A", "\router 2", "\n", "\rinner 2", "\x1b[A"], [],
     ["outer 2", "inner 2"]),
    # The inner one is cleared, and a line is written in the place of the outer one.
    (["\router", "\n", "\rinner", "\x1b[A", "\n\r     \r\x1b[A", "\r     \r", "line\n", "\router"],
     ["line"], ["outer"]),
    ([f"\rbar {i}\n" for i in range(20)], [f"bar {i}" for i in range(13)],
     [f"bar {i}" for i in range(13, 20)]),
    (["name? "], [], ["name? "]),
]  # fmt: skip


@pytest.mark.parametrize(("written", "above", "below"), PRINTED)
def test_what_a_program_prints_is_whole_lines_above_and_bars_below(written, above, below):
    lines: list[str] = []
    inner = io.StringIO()
    stream = _Stream(inner, lambda text: lines.extend(text.split("\n")))
    for text in written:
        stream.write(text)
    assert (lines, stream.bars) == (above, below)
    stream.end()
    assert (lines, stream.bars) == ([*above, *below], [])
    stream.write("later\n")
    assert inner.getvalue() == "later\n"


TQDM = """
import logging, sys, time
import lerax_dist as ld
from tqdm import tqdm, trange

with ld.Logger(ld.ConsoleBackend(interval=0.0), "run", log_dir=sys.argv[1]) as logger:
    for epoch in trange(2, desc="outer"):
        for i in trange(10, desc="inner", leave=False, mininterval=0):
            logger.log({"loss": 1.0 / (i + 1)}, 10 * epoch + i)
            time.sleep(0.02)
            if i == 5:
                logger.flush()
                tqdm.write(f"written {epoch}")
for _ in trange(3, desc="later"):
    pass
"""


@pytest.mark.parametrize("no_color", ["", "1"])
def test_bars_of_tqdm_are_not_torn(tmp_path, no_color):
    pytest.importorskip("tqdm")
    environ: dict[str, Any] = {"NO_COLOR": no_color} if no_color else {}
    terminal = Terminal([*python(TQDM, "default"), str(tmp_path)], 100, 40, environ)
    assert terminal.finish() == 0
    lines = terminal.all_lines()
    assert [line for line in lines if "written" in line] == ["written 0", "written 1"]
    bars = [line for line in lines if "it/s]" in line]
    # Each that was left is there once, and nothing else is on its line.
    assert [bar.partition(":")[0] for bar in bars] == ["outer", "later"]
    assert all(bar.endswith("it/s]") and "100%|" in bar for bar in bars)
    assert not any("inner" in line for line in lines)
    if no_color:
        rows = [line for line in lines if line.startswith("step ")]
        assert len(rows) == 20 and all("loss=" in row for row in rows)
