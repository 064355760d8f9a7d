"""The output of a program that logs: in a terminal, in a pipe, beside the live display."""

import subprocess
import sys
import textwrap

from tests.backends.console.terminal import Terminal, python

PREAMBLE = """
import logging, sys
import numpy as np
import lerax_dist as ld
"""


def run(program, *args):
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_import_adds_no_handler_and_repeated_setup_adds_none_twice():
    done = run("""
        print(logging.getLogger().handlers, logging.getLogger("lerax_dist").handlers)
        for _ in range(3):
            ld.setup_logging()
        log = ld.get_logger("mine")
        log.info("once")
        log.debug("too low")
        logging.getLogger("another.library").info("not asked for")
        logging.getLogger("another.library").warning("asked for")
        print(len(logging.getLogger().handlers))
    """)
    assert done.stdout == "[] []\n2\n"
    lines = [line.split(" ", 1)[1] for line in done.stderr.splitlines()]
    assert lines == ["INFO mine: once", "WARNING another.library: asked for"]


def test_a_program_with_its_own_handlers_gets_no_others():
    done = run("""
        logging.basicConfig(format="mine %(message)s", level=logging.INFO, stream=sys.stdout)
        ld.get_logger("a").info("x")
        print(len(logging.getLogger().handlers))
    """)
    assert (done.stdout, done.stderr) == ("mine x\n1\n", "")


def test_records_appear_complete_above_the_live_display(tmp_path):
    program = """
log = ld.get_logger("train")
with ld.Logger(ld.ConsoleBackend(), "r", log_dir=sys.argv[1], total_steps=20) as logger:
    for step in range(20):
        logger.log({"loss": 1.0 / (step + 1)}, step)
        if step % 5 == 0:
            log.warning("number %d", step)
        logger.flush()
"""
    command = [*python(PREAMBLE + program, warnings="default"), str(tmp_path)]
    terminal = Terminal(command, 100, 40, {"JAX_PLATFORMS": "cpu"})
    assert terminal.finish() == 0
    lines = terminal.all_lines()
    rows = [index for index, line in enumerate(lines) if "WARNING" in line]
    assert [lines[row].split("WARNING")[1].split() for row in rows] == [
        ["number", str(step)] for step in range(0, 20, 5)
    ]
    # The display appears once, below all records.
    shown = [index for index, line in enumerate(lines) if "loss" in line]
    assert min(shown) > max(rows)
    assert (tmp_path / "r" / "logs" / "process_0000.log").read_text().count("WARNING train") == 4


def test_a_run_whose_log_cannot_be_written_starts_anyway(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "logs").write_text("a file where the folder should be")
    program = """
        log = ld.get_logger("mine")
        log.info("one")
        log.info("two")
        with ld.Logger(ld.NoOpBackend(), "r", log_dir=sys.argv[1]) as logger:
            logger.log({"loss": 1.0}, 0)
    """
    errors = run(program, str(tmp_path)).stderr.splitlines()
    assert [line for line in errors if "failed to write" in line] == errors[2:]


def test_records_of_a_run_that_is_closed_at_exit_are_in_its_file(tmp_path):
    program = """
        from tests.memory import Memory

        class Bad(Memory):
            def close(self):
                raise ValueError("last record")

        ld.setup_logging()
        logger = ld.Logger(Bad(), "r", log_dir=sys.argv[1])
        logging.getLogger("mine").warning("first record")
    """
    run(program, str(tmp_path))
    lines = (tmp_path / "r" / "logs" / "process_0000.log").read_text().splitlines()
    assert "first record" in lines[0] and "last record" in lines[1]
