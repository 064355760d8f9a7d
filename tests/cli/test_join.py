"""An end to a wait that nothing else ends: the last words of a process that is stuck."""

import subprocess
import sys

STUCK = """
import sys, threading
from lerax_dist.cli._join import _ended_if_stuck
sys.executable = sys.argv[1]
with _ended_if_stuck(4.0, "out", "nobody came"):
    threading.Event().wait()
"""


def test_last_words_are_said_though_the_process_that_says_them_starts_late(tmp_path):
    late = tmp_path / "python"
    late.write_text(f'#!/bin/sh\nsleep 1.5\nexec {sys.executable} "$@"\n')
    late.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", STUCK, late], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "nobody came\n"), done.stderr
