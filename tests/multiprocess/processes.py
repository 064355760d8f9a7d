"""Runs commands under a time limit and leaves no process behind."""

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

_MARK = "LERAX_DIST_TEST_LAUNCH"


def run_all(
    starts: Sequence[tuple[list[str], dict[str, str]]], timeout: float, cwd: Path | None
) -> tuple[list[int], list[tuple[str, str]]]:
    """Run some commands at once; nothing that they start outlives this.

    Args:
        starts: command and environment of each.
        timeout: seconds after which all of them are killed.
        cwd: working directory.

    Returns:
        Exit status of each, and its output and error output.

    Raises:
        AssertionError: they were killed; the message shows what each wrote.
    """
    mark = uuid.uuid4().hex
    # A JAX process that is aborted would leave a core file of 260 MB.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running: list[subprocess.Popen[bytes]] = []
        stack.callback(_kill, mark)
        for number, (command, environ) in enumerate(starts):
            # Files, not pipes: workers go on without anything being read.
            out = stack.enter_context((folder / f"{number:04}.out").open("wb"))
            err = stack.enter_context((folder / f"{number:04}.err").open("wb"))
            running.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=environ | {_MARK: mark},
                    cwd=cwd,
                )
            )
        late = False
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                late = True
        if late:
            _kill(mark)
        codes = [process.wait() for process in running]
        read = [path.read_text(errors="replace") for path in sorted(folder.iterdir())]
        outputs = list(zip(read[1::2], read[::2], strict=True))  # "0.err", "0.out", "1.err", ...
    if late:
        raise AssertionError(f"Not done after {timeout:g} s.\n{shown(codes, outputs)}")
    return codes, outputs


def _kill(mark: str) -> None:
    """End everything that carries the mark in its environment, orphans of `mpirun` included."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def shown(codes: Sequence[int], outputs: Sequence[tuple[str, str]]) -> str:
    """What commands wrote, for the message of a failure."""
    return "\n".join(
        f"--- start {number}, exit status {code}\n{out[-8000:]}\n{err[-8000:]}"
        for number, (code, (out, err)) in enumerate(zip(codes, outputs, strict=True))
    )
