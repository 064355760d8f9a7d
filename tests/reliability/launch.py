"""Starts the worker, alone or under `mpirun`, and does things to it from outside.

`fork` makes a copy of this process, which has imported everything but has no thread yet: a start
costs a tenth of a new interpreter. `start` makes real interpreters, where their end is what counts.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tests.multiprocess.launch import environment
from tests.reliability.worker import Plan, main

_ROOT = Path(__file__).resolve().parents[2]
_WORKER = Path(__file__).parent / "worker.py"
# Between two looks at what a worker has written, in seconds.
_INTERVAL = 0.005
# A start on a busy machine, in seconds.
_START_TIMEOUT = 150.0


class NotInTime(AssertionError):
    """A worker did not do something in its time."""


@final
@dataclass
class Started:
    """A worker that runs, or `mpirun` with several.

    Attributes:
        plan: what it does.
        pid: of the child.
        output: its standard error and output.
        code: its exit status, once it has ended.
        process: the child, unless it is a fork.
    """

    plan: Plan
    pid: int
    output: Path
    process: subprocess.Popen[bytes] | None = None
    code: int | None = None

    def poll(self) -> int | None:
        """The exit status, `None` while it runs."""
        if self.code is None:
            if self.process is not None:
                self.code = self.process.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        Raises:
            NotInTime: it had to be killed.
        """
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.end()
                raise NotInTime(f"no end after {timeout:g} s:\n{self.text()[-3000:]}")
            threading.Event().wait(_INTERVAL)
        assert self.code is not None
        return self.code

    def marks(self, process: int = 0) -> dict[str, tuple[float, int]]:
        """What a worker process has done so far: word to time and process id."""
        path = Path(self.plan.side) / f"marks-{process}-{self.plan.attempt:04}"
        found: dict[str, tuple[float, int]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text().splitlines():
                word, at, pid = line.rsplit(" ", 2)
                found[word] = float(at), int(pid)
        return found

    def await_mark(self, word: str, process: int = 0, timeout: float = _START_TIMEOUT) -> int:
        """Wait until a worker process has done something; returns its process id.

        Raises:
            NotInTime: it has not, or has ended before.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = self.poll() is not None
            marks = self.marks(process)
            if word in marks:
                return marks[word][1]
            if ended or time.monotonic() > deadline:
                self.end()
                raise NotInTime(f"no {word!r} of process {process}:\n{self.text()[-3000:]}")
            threading.Event().wait(_INTERVAL)

    def tell(self, process: int, what: str, **fields: float) -> None:
        """Let a worker process make a trouble for itself at its next step."""
        path = Path(self.plan.side) / f"do-{process}.json"
        path.with_suffix(".new").write_text(json.dumps({"what": what, **fields}))
        path.with_suffix(".new").rename(path)

    def text(self) -> str:
        """What all of its processes have written to their outputs."""
        return self.output.read_text(errors="replace")

    def end(self) -> None:
        """Kill what is left of it."""
        pids = [self.pid]
        for path in Path(self.plan.side).glob(f"marks-*-{self.plan.attempt:04}"):
            process = int(path.name.split("-")[1])
            pids += {pid for _, pid in self.marks(process).values()}
        if self.poll() is not None:
            pids = pids[1:]
        for pid in pids:
            # Only a process of ours: a number may have been given to another one since.
            with contextlib.suppress(OSError):
                if self.plan.side.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() or (
                    pid == self.pid
                ):
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)
        if self.poll() is None:
            self.wait(20.0)


def _output(plan: Plan) -> Path:
    Path(plan.side).mkdir(parents=True, exist_ok=True)
    return Path(plan.side) / f"output-{plan.name}-{plan.attempt:04}-{time.monotonic_ns()}"


def fork(plan: Plan) -> Started:
    """Start the worker of one process as a copy of this one. It ends without exit handlers."""
    path = _output(plan)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Started(plan, pid, path)
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        main(plan.text())
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(plan: Plan, processes: int = 0, env: Mapping[str, str] | None = None) -> Started:
    """Start the worker in interpreters of its own; under `mpirun` if `processes` is not 0."""
    path = _output(plan)
    command = [sys.executable, str(_WORKER), plan.text()]
    if processes:
        beside = Path(sys.executable).parent / "mpirun"
        mpirun = str(beside) if beside.exists() else "mpirun"
        command = [mpirun, "-n", str(processes), *command]
    environ = environment(1, env or {})
    with path.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=_ROOT
        )
    return Started(plan, process.pid, path, process)
