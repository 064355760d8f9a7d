"""What a program shows in a terminal, at one moment of its life."""

import copy
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte


def record(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    size: tuple[int, int],
    percent: float,
    limit: float,
) -> pyte.Screen:
    """Run a program to its end and keep its screen as it was at a percentage of its progress.

    Args:
        command: what to run.
        folder: where.
        env: its variables.
        size: columns and rows of the terminal.
        percent: the first screen that shows as many percent or more is kept.
        limit: seconds that it may take.
    """
    columns, rows = size
    screen, kept = pyte.Screen(columns, rows), None
    stream = pyte.ByteStream(screen)
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    deadline = time.monotonic() + limit
    # What XLA says on a busy machine is no part of the picture.
    errors = folder / "stderr.txt"
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            command, cwd=folder, env=dict(env), stdin=inner, stdout=inner, stderr=stderr
        ) as program,
    ):
        os.close(inner)
        while time.monotonic() < deadline:
            if not select.select([outer], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(outer, 65536)
            except OSError:  # the program has ended
                break
            stream.feed(data)
            if kept is None and not select.select([outer], [], [], 0.05)[0]:
                told = [float(found) for found in re.findall(r"(\d+(?:\.\d+)?) ?%", text(screen))]
                if max(told, default=0.0) >= percent:
                    kept = copy.deepcopy(screen)
        os.close(outer)
        if program.wait(limit) != 0 or kept is None:
            said = f"{text(screen)}\n{errors.read_text()}"
            raise SystemExit(f"{command} has ended with {program.returncode}:\n{said}")
    return kept


def text(screen: pyte.Screen) -> str:
    return "\n".join(screen.display)
