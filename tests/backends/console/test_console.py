"""The console as a user sees it: in a pseudo-terminal, and through a pipe."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lerax_dist import Logger
from lerax_dist.backends import ConsoleBackend
from tests.backends.console.terminal import Terminal, python

TRAINING = """
import logging, sys
import numpy as np
from lerax_dist import Logger
from lerax_dist.backends import ConsoleBackend

logging.basicConfig(level=logging.INFO, format="%(message)s")
now = 0.0
backend = ConsoleBackend(clock=lambda: now)
backend.open("ppo/CartPole")
backend.log_hparams({"policy.width": 64, "lr": 3e-4})
backend.on_training_start(1_000_000, 100)
print("a line from print")
logging.info("a line from logging")

def row(index):
    global now
    now += 2.0
    values = {
        "train/loss": 1.0 / index,
        "train/grad_norm": float("nan"),
        "episode/return": 5.0 * index,
        "episode/length": 200.0,
        "time/steps_per_second": 12345.678,
    }
    scalars = {name: np.float64(value) for name, value in values.items()}
    backend.log_scalars(scalars, index * 10_000)

for index in range(1, 51):
    row(index)
backend.log_video("eval/video", np.zeros((128, 48, 64, 3), np.uint8), 500_000, 50.0)
print("fifty rows")
sys.stdin.readline()
for index in range(51, 101):
    row(index)
print("a hundred rows")
backend.close()
print("after the end")
"""
COLORFUL = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "TTY_COMPATIBLE")


def environment(**extra: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in COLORFUL}
    return {**env, **extra}


def piped(program: str, **env: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(("columns", "rows"), [(60, 24), (100, 30), (200, 50)])
def test_a_terminal_shows_the_run_in_place_and_then_its_last_state(columns, rows):
    terminal = Terminal(python(TRAINING), columns, rows, {"COLUMNS": "", "LINES": ""})
    terminal.wait_for("fifty rows")
    terminal.wait_for("50.0%")
    terminal.send("")
    assert terminal.finish() == 0
    lines = terminal.all_lines()
    whole = "\n".join(lines)
    assert lines[-1] == "after the end"
    for once in ("ppo/CartPole ──", "hyperparameters", "100.0%", "eval/video: 128 frames 64x48"):
        assert whole.count(once) == 1, whole
    for printed in ("a line from print", "a line from logging", "fifty rows", "a hundred rows"):
        assert lines.count(printed) == 1, whole
        assert lines.index(printed) < lines.index("after the end") - 10
    words = whole.split()
    assert words[words.index("loss") + 1] == "0.01"
    assert words[words.index("grad_norm") + 1] == "nan"
    assert words[words.index("steps_per_second") + 1] == "12,346"
    assert "1,000,000 / 1,000,000 steps   5,000 steps/s   elapsed 3m20s" in whole
    assert "50.0%" not in whole
    assert any("⠀" < char <= "⣿" for char in whole)


def test_the_display_is_redrawn_rarely_and_not_for_each_row():
    program = TRAINING.replace("range(1, 51)", "range(1, 20_001)")
    terminal = Terminal(python(program), 100, 30)
    terminal.send("")
    assert terminal.finish() == 0
    assert terminal.raw.count(b"ppo/CartPole") < 200


def test_a_window_that_changes_its_size_ends_with_a_whole_display():
    terminal = Terminal(python(TRAINING), 120, 40)
    terminal.wait_for("50.0%")
    terminal.resize(70, 50)
    terminal.send("")
    assert terminal.finish() == 0
    lines = terminal.lines()
    titles = [index for index, line in enumerate(lines) if line.startswith("ppo/CartPole ──")]
    shown = lines[titles[-1] :]
    assert len(shown[0]) == 69
    assert max(map(len, shown)) <= 70
    assert shown[-1] == "after the end"
    assert sum("100.0%" in line for line in lines) == 1


def test_a_run_that_is_interrupted_leaves_its_last_state_and_says_where_it_ran(tmp_path):
    program = f"""
import lerax_dist as ld
logger = ld.Logger(ld.ConsoleBackend(), "run", log_dir={str(tmp_path)!r}, total_steps=10**9)
with logger:
    for step in range(10**9):
        logger.log({{"train/loss": 1 / (step + 1)}}, step)
        if step == 1000:
            logger.flush()
            print("a thousand rows")
        while step >= 1000:
            pass
"""
    terminal = Terminal(python(program), 100, 30)
    terminal.wait_for("a thousand rows")
    terminal.wait_for("1,000")
    terminal.interrupt()
    assert terminal.finish() != 0
    lines = terminal.all_lines()
    (title,) = [index for index, line in enumerate(lines) if line.startswith("run ──")]
    assert lines[title + 1].startswith("solo   1 process × 8 devices   on ")
    (end,) = [index for index, line in enumerate(lines) if line.startswith("Traceback")]
    assert lines[-1] == "KeyboardInterrupt"
    words = " ".join(lines[title:end]).split()
    assert words[words.index("loss") + 1] == "0.000999"
    assert not terminal.screen.cursor.hidden


def test_the_cursor_stays_visible_for_who_is_killed():
    program = TRAINING.replace("sys.stdin.readline()", "import os; os.kill(os.getpid(), 9)")
    terminal = Terminal(python(program), 100, 30)
    assert terminal.finish() == -signal.SIGKILL
    assert not terminal.screen.cursor.hidden


README_LOOP = """
import lerax_dist as ld
with ld.Logger(ld.ConsoleBackend(), "run", log_dir={log_dir!r}, total_steps=200) as logger:
    for step in range(200):
        logger.log({{"train/loss": 1 / (step + 1)}}, step)
"""


def test_the_last_screen_of_the_loop_in_the_readme_shows_100_percent(tmp_path):
    terminal = Terminal(python(README_LOOP.format(log_dir=str(tmp_path))), 100, 30)
    assert terminal.finish() == 0
    lines = terminal.lines()
    (title,) = [index for index, line in enumerate(lines) if line.startswith("run ──")]
    assert lines[title].endswith("── finished")
    assert any(line.endswith("━  100.0%") for line in lines[title:])
    assert any(line.startswith("199 / 200 steps ") for line in lines[title:])


@pytest.mark.parametrize("interval", [0.0, 10.0])
def test_the_last_line_of_the_loop_in_the_readme_shows_100_percent(tmp_path, interval):
    file = io.StringIO()
    backend = ConsoleBackend(console=Console(file=file), interval=interval)
    with Logger(backend, "run", log_dir=tmp_path, total_steps=200) as logger:
        for step in range(200):
            logger.log({"train/loss": 1 / (step + 1)}, step)
    assert file.getvalue().splitlines()[-1].startswith("step 199  100.0%  ")


def test_a_run_that_fails_at_its_last_row_does_not_show_100_percent(tmp_path):
    file = io.StringIO()
    backend = ConsoleBackend(console=Console(file=file))
    with pytest.raises(KeyError):
        with Logger(backend, "run", log_dir=tmp_path, total_steps=200) as logger:
            for step in range(200):
                logger.log({"train/loss": 1 / (step + 1)}, step)
            raise KeyError
    assert file.getvalue().splitlines()[-1].startswith("step 199  99.5%  ")


CONTROL = """
import numpy as np
from lerax_dist.backends import ConsoleBackend
bad = "\\x1b]0;owned\\x07\\x1b[2Jx\\x9b31m\\r"
backend = ConsoleBackend(chart="loss" + bad)
backend.open("run" + bad)
backend.on_run({"launcher": bad, "process_count": 1, "device_count": 1, "host": bad})
backend.log_hparams({"lr" + bad: bad})
values = dict.fromkeys((f"g{bad}/a{bad}", "loss" + bad, f"lerax_dist/lag/B{bad}"), np.float64(1))
backend.log_scalars(values, 1)
backend.log_video("v" + bad, np.zeros((2, 8, 8, 3), np.uint8), 1, 50.0)
backend.on_end("failed" + bad)
backend.close()
"""


def test_control_characters_in_names_do_not_reach_a_terminal():
    terminal = Terminal(python(CONTROL), 100, 30)
    assert terminal.finish() == 0
    assert b"owned" in terminal.raw
    for sequence in (b"\x1b]0;", b"\x07", b"\x1b[2J", "\x9b".encode()):
        assert sequence not in terminal.raw
    whole = "\n".join(terminal.all_lines())
    for text in ("run?]0;owned", "lr?]0;owned", "loss?]0;owned", "v?]0;owned", "failed?]0;owned"):
        assert text in whole


def test_control_characters_in_names_do_not_reach_a_pipe():
    out = piped(CONTROL)
    assert out.count("owned") >= 6
    assert all(line.isprintable() for line in out.splitlines())


def test_close_gives_stdout_stderr_and_handlers_back():
    program = """
import logging, sys
from lerax_dist import Logger
from lerax_dist.backends import ConsoleBackend
handler = logging.StreamHandler()
logging.getLogger("some.name").addHandler(handler)
before = sys.stdout, sys.stderr, handler.stream
backend = ConsoleBackend()
backend.open("run")
during = sys.stdout, sys.stderr, handler.stream
backend.close()
after = sys.stdout, sys.stderr, handler.stream
print("given back" if all(a is b for a, b in zip(before, after)) else "kept")
print("caught" if not any(a is b for a, b in zip(before, during)) else "missed")
"""
    terminal = Terminal(python(program), 100, 30)
    assert terminal.finish() == 0
    assert terminal.lines()[-2:] == ["given back", "caught"]


def test_no_hyperparameters_print_nothing():
    program = """
from lerax_dist.backends import ConsoleBackend
backend = ConsoleBackend()
backend.open("run")
backend.log_hparams({})
backend.close()
"""
    terminal = Terminal(python(program), 100, 30)
    assert terminal.finish() == 0
    assert terminal.all_lines()[0].startswith("run ──")


def test_two_displays_on_one_terminal_do_not_raise():
    program = """
import numpy as np
from lerax_dist import Logger
from lerax_dist.backends import ConsoleBackend
backends = [ConsoleBackend(), ConsoleBackend()]
for index, backend in enumerate(backends):
    backend.open(f"run{index}")
    backend.log_scalars({"loss": np.float64(index)}, 1)
for backend in backends:
    backend.close()
print("after the end")
"""
    terminal = Terminal(python(program), 100, 30)
    assert terminal.finish() == 0
    assert terminal.lines()[-1] == "after the end"


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colors_gets_plain_lines(variable):
    terminal = Terminal(python(TRAINING), 300, 30, variable)
    terminal.send("")
    assert terminal.finish() == 0
    assert b"\x1b" not in terminal.raw
    assert terminal.lines()[0] == "run ppo/CartPole"


@pytest.mark.parametrize("variable", [{}, {"FORCE_COLOR": "1"}, {"COLUMNS": "40"}])
def test_a_pipe_gets_plain_lines(variable):
    lines = piped(TRAINING, **variable).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0] == "run ppo/CartPole"
    assert lines[1] == "hparams  policy.width=64  lr=0.0003"
    assert lines[-1] == "after the end"
    rows = [line for line in lines if line.startswith("step ")]
    assert rows[0] == (
        "step 10,000  1.0%  elapsed 2s  episode/return=5  train/loss=1  train/grad_norm=nan  "
        "episode/length=200  time/steps_per_second=12,346"
    )
    assert rows[1].startswith("step 60,000  6.0%  elapsed 12s  ETA 3m08s  episode/return=30  ")
    assert rows[-1].startswith("step 1,000,000  100.0%  elapsed 3m20s  ETA 0s  ")
    # 10 s between lines and 2 s between rows: every fifth, and the last.
    assert len(rows) == 21
    assert "video eval/video: 128 frames 64x48 at step 500,000" in lines


def test_a_pipe_that_speaks_ascii_gets_names_it_can_print():
    program = """
import numpy as np
from lerax_dist import Logger
from lerax_dist.backends import ConsoleBackend
backend = ConsoleBackend()
backend.open("täst")
backend.log_scalars({"größe": np.float64(1)}, 1)
backend.close()
"""
    out = piped(program, PYTHONIOENCODING="ascii")
    assert out.splitlines()[0] == "run t\\xe4st"
    assert "gr\\xf6\\xdfe=1" in out


def test_the_pseudo_terminal_of_mpirun_without_a_terminal_is_a_pipe():
    root = {
        f"{name}_ALLOW_RUN_AS_ROOT{confirm}": "1"
        for name in ("OMPI", "PRTE")
        for confirm in ("", "_CONFIRM")
    }
    program = TRAINING.replace("sys.stdin.readline()", "")
    result = subprocess.run(
        [
            Path(sys.executable).parent / "mpirun",
            "--oversubscribe",
            "-n",
            "1",
            sys.executable,
            "-c",
            program,
        ],
        env=environment(TERM="xterm", **root),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "step 1,000,000  100.0%" in result.stdout


def backend_on(file: io.StringIO, times: list[float]) -> ConsoleBackend:
    console = Console(file=file)
    return ConsoleBackend(console=console, interval=10.0, clock=lambda: times[0])


def scalar(value: float) -> np.ndarray:
    return np.array(value)


def test_a_notebook_gets_plain_lines():
    file = io.StringIO()
    backend = ConsoleBackend(console=Console(file=file, force_jupyter=True), metrics=["a"])
    backend.open("run")
    backend.on_run({"launcher": "solo", "process_count": 1, "device_count": 8, "host": "h"})
    backend.log_scalars({"a": scalar(1), "b": scalar(2)}, 1)
    backend.close()
    assert file.getvalue() == (
        "run run\nsolo  1 process × 8 devices  on h\nstep 1  elapsed 0s  a=1\n"
    )


def test_a_metric_between_two_lines_is_in_the_next():
    file, times = io.StringIO(), [0.0]
    backend = backend_on(file, times)
    backend.open("run")
    backend.log_scalars({"a": scalar(1)}, 1)
    times[0] = 5.0
    backend.log_scalars({"a": scalar(2), "eval/score": scalar(7)}, 2)
    times[0] = 10.0
    backend.log_scalars({"a": scalar(3)}, 3)
    assert file.getvalue().splitlines()[-1].endswith("a=3  eval/score=7")
    backend.close()
    assert len(file.getvalue().splitlines()) == 3


def test_the_last_row_is_printed_at_close_and_once_only():
    file, times = io.StringIO(), [0.0]
    backend = backend_on(file, times)
    backend.open("run")
    for step in (1, 2, 3):
        backend.log_scalars({"a": scalar(step)}, step)
    backend.close()
    backend.close()
    steps = [line.split()[1] for line in file.getvalue().splitlines()[1:]]
    assert steps == ["1", "3"]


def test_a_name_with_line_feeds_and_markup_is_printed_as_it_is_on_one_line():
    file = io.StringIO()
    backend = backend_on(file, [0.0])
    backend.open("[bold]a\nb")
    assert file.getvalue() == "run [bold]a b\n"


def test_frames_of_another_type_are_refused():
    backend = backend_on(io.StringIO(), [0.0])
    backend.open("run")
    with pytest.raises(ValueError, match="`frames` must be uint8"):
        backend.log_video("v", np.zeros((2, 8, 8, 3)), 0, 50.0)


def test_what_is_not_open_refuses_rows():
    backend = backend_on(io.StringIO(), [0.0])
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_scalars({}, 0)
    backend.open("run")
    with pytest.raises(RuntimeError, match="other"):
        backend.open("other")
    backend.close()
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_scalars({}, 0)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.on_training_start(1, 1)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_hparams({})
