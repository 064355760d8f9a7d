"""Runs watched from outside: while another process writes them, and afterwards."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from lerax_dist.cli import main
from lerax_dist.cli._followed import FollowedRun
from tests.backends.console.terminal import Terminal
from tests.journal.journals import age, closed, extend, lines, opened, resumed, row, started, write

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).parent / "workers" / "writing.py"
WATCH = [sys.executable, "-m", "lerax_dist.cli", "watch"]
HOME = b"\x1b[H"
PLAIN = {"COLUMNS": "", "LINES": "", "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def writer(log_dir: Path, name: str):
    """A process that writes a run; gives what tells it to."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(log_dir), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

    def tell(command: str) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    with process:
        yield tell


def once(*run_dirs: Path, capsys) -> str:
    assert main(["watch", "--once", *map(str, run_dirs)]) == 0
    return capsys.readouterr().out


def test_a_run_that_another_process_writes_is_followed_to_its_end(tmp_path):
    terminal = Terminal([*WATCH, str(tmp_path / "live")], 100, 30, PLAIN)
    terminal.wait_for("no journal in")
    with writer(tmp_path, "live") as tell:
        assert tell("20") == "done"
        terminal.wait_for("20.0%")
        terminal.wait_for("running")
        terminal.resize(70, 24)
        assert tell("30") == "done"
        terminal.wait_for("50.0%")
        shown = terminal.lines()
        assert max(map(len, shown)) <= 70 and len(shown) <= 24
        assert shown[0].startswith("live ──")
        assert tell("50") == "done"
        assert tell("end") == "closed"
    assert terminal.finish() == 0
    # The window is given back, with the last state in it.
    assert b"\x1b[?1049h" in terminal.raw and b"\x1b[?1049l" in terminal.raw
    whole = "\n".join(terminal.lines())
    assert "── finished" in whole
    assert "1,000 / 1,000 steps" in whole
    words = whole.split()
    assert words[words.index("return") + 1 : words.index("return") + 3] == ["1,000", "+10"]
    assert not terminal.screen.cursor.hidden


def test_a_run_that_was_killed_is_interrupted_and_ctrl_c_ends_the_watch(tmp_path):
    with writer(tmp_path, "r") as tell:
        assert tell("20") == "done"
        tell("die")
    age(tmp_path / "r")
    terminal = Terminal([*WATCH, str(tmp_path / "r")], 100, 30, PLAIN)
    terminal.wait_for("interrupted")
    terminal.interrupt()
    assert terminal.finish() == 0
    assert "── interrupted" in "\n".join(terminal.lines())


def test_a_watched_run_is_interrupted_a_minute_after_its_last_sign_of_life(tmp_path):
    path = write(tmp_path, [opened(), row(1, a=1.0)])
    now = [0.0]
    run = FollowedRun(path, None, "a", monotonic=lambda: now[0])
    states = []
    for seconds in range(0, 141, 10):
        now[0] = float(seconds)
        if seconds == 50:
            extend(path, lines([row(2, a=1.0)], first=2))
        run.poll()
        states.append(run.view.state)
    assert states == ["running"] * 11 + ["interrupted"] * 4


def test_a_pipe_gets_plain_lines(tmp_path):
    rows = [row(step, episode__return=step / 2, loss=1.0) for step in range(0, 100, 10)]
    write(tmp_path / "a", [opened(), started(100), *rows, closed("failed", ("disk: full",))])
    write(tmp_path / "b", [opened(), *rows[:5], closed()])
    for runs, expected in (
        (["a"], ["step 90  90.0%", "run r  failed  slurm  4 processes × 8 devices  on h"]),
        (["a", "b"], ["a: step 90", "a: run a  failed", "b: step 40", "b: run b  finished"]),
    ):
        done = subprocess.run(
            [*WATCH, *(str(tmp_path / run) for run in runs)],
            **{"env": os.environ | PLAIN, "timeout": 60, "text": True, "capture_output": True},
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert "\x1b" not in done.stdout and len(said) == len(expected)
        for line, start in zip(said, expected, strict=True):
            assert line.startswith(start)
    assert said[0].endswith("episode/return=45  loss=1")
    assert said[1].endswith("disk: full")


def test_runs_side_by_side(tmp_path, capsys):
    for name, factor in (("a", 1.0), ("b", 3.0)):
        rows = [row(step, episode__return=factor * step, loss=0.5) for step in range(1, 9)]
        write(tmp_path / name, [opened(), started(8), *rows, closed()])
    write(tmp_path / "c", [opened(), row(3, other=1.0)])
    age(tmp_path / "c")
    said = once(*(tmp_path / name for name in "abc"), capsys=capsys).splitlines()
    assert [line.split()[:3] for line in said[:3]] == [
        ["●", "a", "finished"],
        ["●", "b", "finished"],
        ["●", "c", "interrupted"],
    ]
    (values,) = [line.split() for line in said if line.startswith("  return")]
    assert values == ["return", "8", "24", "-"] or values[::2] == ["return", "▁▂▃▄▅▆▇█", "▁▂▃▄▅▆▇█"]
    assert any("episode/return" in line for line in said)
    assert max(map(len, said)) <= 100


def test_side_by_side_fits_the_window_also_when_that_changes(tmp_path):
    for name in ("a", "b"):
        rows = [row(s, **{f"g{i % 5}__m{i}": s / 7 for i in range(30)}) for s in range(50)]
        write(tmp_path / name, [opened(), *rows])
    terminal = Terminal([*WATCH, str(tmp_path / "a"), str(tmp_path / "b")], 200, 50, PLAIN)
    terminal.wait_for("m29")
    for columns, rows in ((60, 24), (100, 30), (200, 50)):
        drawn = terminal.raw.count(HOME)
        terminal.resize(columns, rows)
        # The first may have been under way before.
        terminal.wait_until(lambda count=drawn + 3: terminal.raw.count(HOME) >= count)
        shown = terminal.lines()
        assert shown[0].startswith("● a") and shown[1].startswith("● b")
        assert max(map(len, shown)) < columns and len(shown) <= rows
        assert any("g0" in line for line in shown)
    terminal.interrupt()
    assert terminal.finish() == 0
    # The terminal that is simulated has no second screen; a real one shows the last part only.
    last = "\n".join(terminal.all_lines()).rpartition("● a ")[2]
    assert [last.count(f"  m{i} ") for i in range(30)] == [1] * 30


def test_a_damaged_journal_is_shown_with_what_it_lacks(tmp_path, capsys):
    records = [opened(), *(row(step, loss=step / 2) for step in range(1, 6))]
    data = lines(records).splitlines(keepends=True)
    data[2] = data[2].replace(b"loss", b"l\x00ss")
    path = write(tmp_path / "r", [])
    path.write_bytes(b"".join(data) + b'{"n": 6, "ti')
    age(tmp_path / "r")
    said = once(tmp_path / "r", capsys=capsys)
    assert "damaged lines in the journal: 1" in said
    assert "records missing from the journal: 1" in said
    assert "5 steps" in said and "── interrupted" in said
    path.write_bytes(b"\x00" * 1000)
    assert "── damaged" in once(tmp_path / "r", capsys=capsys)


def test_rows_that_came_again_are_hidden_and_the_incarnation_is_said(tmp_path, capsys):
    first = [opened(), *(row(step, loss=100.0) for step in range(0, 100, 10))]
    path = write(tmp_path / "r", first)
    run = FollowedRun(path, None, "loss", clock=lambda: 0.0)
    run.poll()
    assert run.view.history.curve("loss")[1].tolist() == [100.0] * 10
    again = [opened(incarnation=2), resumed(50), row(50, loss=1.0), closed("preempted")]
    extend(path, lines(again, first=len(first)))
    run.poll()
    assert run.view.history.curve("loss")[1].tolist() == [100.0] * 5 + [1.0]
    assert run.view.state == "preempted" and not run.ended
    said = once(tmp_path / "r", capsys=capsys)
    assert "incarnation 2" in said and "── preempted" in said
    assert "50 steps" in said


def test_a_journal_that_was_replaced_is_another_run(tmp_path):
    path = write(tmp_path / "r", [opened("one"), row(1, a=1.0)])
    run = FollowedRun(path, None, "a", clock=lambda: 0.0)
    run.poll()
    write(tmp_path / "new", [opened("two"), row(5, b=1.0)]).replace(path)
    run.poll()
    assert run.view.name == "two" and list(run.view.latest) == ["b"]


def test_what_is_watched_is_not_written_or_locked(tmp_path, capsys):
    path = write(tmp_path / "r", [opened(), row(1, a=1.0)])
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(tmp_path.rglob("*")))
    path.chmod(0o444)
    (tmp_path / "r").chmod(0o555)
    once(tmp_path / "r", capsys=capsys)
    (tmp_path / "r").chmod(0o755)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(tmp_path.rglob("*"))) == before


def test_once_without_a_run(tmp_path, capsys):
    assert main(["watch", "--once", str(tmp_path)]) == 1
    assert "there is no journal.jsonl in" in capsys.readouterr().err
