"""The watchdog over a wait that nothing else ends, and what is kept of joining."""

import logging
import subprocess
import sys
from pathlib import Path

from lerax_dist.cli.doctor._driver import join
from lerax_dist.cluster import detect

STUCK = """
import sys, threading
from lerax_dist.cluster import watchdog
sys.executable = sys.argv[1]
with watchdog(4.0, "timed out", stream="stdout"):
    threading.Event().wait()
"""


def test_the_message_is_printed_though_the_process_that_prints_it_starts_late(tmp_path: Path):
    late = tmp_path / "python"
    late.write_text(f'#!/bin/sh\nsleep 1.5\nexec {sys.executable} "$@"\n')
    late.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", STUCK, late], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "timed out\n"), done.stderr


def test_warnings_of_joining_are_kept_and_not_printed(monkeypatch, caplog):
    def initialize(*, timeout: float) -> str:
        log = logging.getLogger("lerax_dist")
        log.warning("waited %g s", timeout)
        log.info("Process 0 of 2 on h (slurm: X=1), coordinator h:12.")
        return "the group"

    monkeypatch.setattr("lerax_dist.cli.doctor._driver.initialize", initialize)
    assert join(detect({}), {}, 7.0, as_json=True) == ("the group", ["waited 7 s"])
    assert caplog.records == []
