"""Runs commands on the tests' own SLURM and brings back what their processes report."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, final

from tests.multiprocess.launch import environment, pytest_worker, reports
from tests.multiprocess.processes import run_all

_SCRIPT = Path(__file__).parent / "slurm-local.sh"
_PROGRAMS = ("slurmctld", "slurmd", "munged", "srun")
# `sbatch --wait` looks after 2, 10, 42 and 74 s only; what depends on the job starts at once.
_BATCH = 'job=$(sbatch --parsable "$@") && srun -Q -N1 -n1 --dependency=afterok:"$job" true'
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"])
NODES = ["127.0.0.1", "127.0.0.2"]


@final
@dataclass(frozen=True)
class Outcome:
    """What came of a command on SLURM.

    Attributes:
        text: its output and that of the batch jobs it waited for.
        reports: what the processes reported, by index.
    """

    text: str
    reports: list[dict[str, Any]]


@final
@dataclass(frozen=True)
class Slurm:
    """A SLURM of two nodes that claim 32 cores and four GPUs each, all on this machine.

    Attributes:
        folder: where its settings and logs are.
    """

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """What SLURM's commands find it by."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def run(
        self,
        *command: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 150.0,
    ) -> Outcome:
        """Run a command of SLURM's; one that fails or takes too long fails the test and is shown.

        Args:
            *command: the command.
            cwd: working directory, where batch jobs leave their output as `*.out`.
            env: variables on top of a scrubbed environment.
            timeout: seconds after which everything that was started is killed.
        """
        environ = environment(1, self.variables | dict(env or {}))
        try:
            codes, outputs = run_all([([str(part) for part in command], environ)], timeout, cwd)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_written(cwd)}\n{self.logs()}") from None
        text = "\n".join([*outputs[0], _written(cwd)])
        if codes != [0]:
            raise AssertionError(f"Exit status {codes[0]}.\n{text}\n{self.logs()}")
        return Outcome(text, sorted(reports(text), key=lambda values: values["process"]))

    def batch(
        self,
        *arguments: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 150.0,
    ) -> Outcome:
        """Run a batch job to its end: `run` of `sbatch` with these arguments."""
        command = ("bash", "-c", _BATCH, "sbatch", *arguments)
        return self.run(*command, cwd=cwd, env=env, timeout=timeout)

    def cancel(self) -> None:
        """End all jobs, which a test that failed may have left."""
        subprocess.run(
            ["scancel", "--quiet", "--full", "--user=root"],
            env=os.environ | self.variables,
            timeout=30,
            check=True,
        )

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted((self.folder / "log").glob("slurm*.log"))
        )


def obstacle() -> str:
    """Why there can be no SLURM here; empty if there can."""
    if sys.platform != "linux":
        return f"SLURM runs on Linux only, this is {sys.platform}"
    if os.geteuid() != 0:
        return f"SLURM's daemons are started by root, this is user {os.geteuid()}"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing and shutil.which("apt-get") is None:
        return f"{', '.join(missing)} missing, and no apt-get to install them"
    return ""


@contextmanager
def local_slurm() -> Iterator[Slurm]:
    """A SLURM while the block runs, installed before if need be."""
    with ExitStack() as stack:
        # Not pytest's folder, whose name can be too long for a socket's. Kept on failure only.
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        port, job = _free_numbers()
        environ = os.environ | {
            "SLURM_LOCAL_DIR": str(folder),
            "SLURM_LOCAL_PORT": str(port),
            "SLURM_LOCAL_JOB": str(job),
            "SLURM_LOCAL_NODES": str(len(NODES)),
        }
        # To a file: the daemons would keep a pipe open.
        said = folder / "start.out"
        stack.callback(_call, "stop", environ, folder.with_suffix(".out"), timeout=90)
        _call("start", environ, said, timeout=500)
        yield Slurm(folder)
    shutil.rmtree(folder)
    folder.with_suffix(".out").unlink()


def _call(action: str, environ: Mapping[str, str], said: Path, timeout: float) -> None:
    with said.open("wb") as file:
        done = subprocess.run(
            [str(_SCRIPT), action],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
    if done.returncode:
        raise RuntimeError(f"{_SCRIPT.name} {action}: {said.read_text(errors='replace')}")


def _free_numbers() -> tuple[int, int]:
    """A port with free ones behind it, and a first job id that no job with another port has.

    JAX makes its port from the lowest 12 bits of the id, so two SLURMs on this machine may not
    count through the same ones: 32 ports go with 32 ids.
    """
    # Two that start at the same moment would both find them free.
    number, count = pytest_worker()
    while True:
        window = SystemRandom().choice(range(1 + number, 128, count))
        port = 20_000 + 32 * window
        try:
            for place in range(1 + len(NODES)):
                socket.create_server(("", port + place)).close()
        except OSError:
            continue
        return port, 4096 + 32 * window


def _written(cwd: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-8000:] for path in sorted(cwd.glob("*.out")))
