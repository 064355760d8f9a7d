"""Which measurements make up the table, each in a process of its own. Pure."""

import os
import sys
from dataclasses import dataclass, field
from typing import Any, final

# A deadlock of the simulated devices ends in a minute.
_FLAGS = "--xla_cpu_collective_call_terminate_timeout_seconds=60"


@final
@dataclass(frozen=True)
class Measurement:
    """A program to run.

    Attributes:
        module: module of this package.
        args: its arguments.
        devices: simulated devices of each of its processes.
        processes: how many processes `mpirun` starts; 0 for one without it.
        timeout: seconds that it may take.
    """

    module: str
    args: tuple[str, ...] = ()
    devices: int = 1
    processes: int = 0
    timeout: float = 600.0
    env: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called on the progress line."""
        where = f"{self.processes or 1} x {self.devices} devices"
        return " ".join([self.module, where, *self.args])

    def command(self) -> list[str]:
        """The command line."""
        python = [sys.executable, "-m", f"benchmarks.{self.module}", *self.args]
        if not self.processes:
            return python
        mpirun = os.path.join(os.path.dirname(sys.executable), "mpirun")
        return [mpirun, "--bind-to", "none", "-n", str(self.processes), *python]

    def environment(self) -> dict[str, str]:
        """Its environment."""
        flags = f"{_FLAGS} --xla_force_host_platform_device_count={self.devices}"
        return {**os.environ, "XLA_FLAGS": flags, "PYTHONUNBUFFERED": "1", **self.env}


def full(gpu: bool, grid: bool) -> list[Measurement]:
    """Everything.

    Args:
        gpu: whether there is one, to measure on it as well.
        grid: every length of a step with every number of metrics, and not only each with the
            middle of the other.
    """
    measurements = [
        Measurement("imports"),
        *_loops(("scan", "python"), grid),
        *_loops(("shard_map",), grid, devices=4),
        Measurement("loops", ("--forms", "python", "--steps-ms", "10"), devices=4),
        # Two devices keep both cores of a small machine busy, which the targets speak of.
        Measurement("loops", ("--forms", "shard_map", "--steps-ms", "10"), devices=2),
        *(
            Measurement("loops", ("--forms", form, "--distributed"), devices=2, processes=2)
            for form in ("shard_map", "python")
        ),
        Measurement("rivals"),
        Measurement("layouts"),
        Measurement("inside"),
        Measurement("inside", ("--rounds", "2"), devices=4),
        Measurement("writers"),
        Measurement("reading"),
        Measurement("processes", env={"JAX_PLATFORMS": "cpu"}),
        # Programs for many devices and many metrics at once take minutes to compile.
        Measurement("counts", ("--devices", "1", "2", "8", "--metrics", "4", "64", "256"), 8),
        Measurement("counts", ("--devices", "8", "--metrics", "1024"), 8),
        Measurement("counts", ("--devices", "64", "256", "--metrics", "64"), 256),
        Measurement("memory"),
        # It installs two environments, and compiles 1,024 metrics one by one.
        Measurement("accelerators", timeout=1800.0),
    ]
    if gpu:
        chip = {"JAX_PLATFORMS": ""}
        measurements += _loops(("scan", "python"), grid, env=chip)
        measurements.append(Measurement("rivals", env=chip))
    return measurements


def _loops(forms: tuple[str, ...], grid: bool, **where: Any) -> list[Measurement]:
    if grid:
        metrics = ("--metrics", "4", "64", "256")
        return [Measurement("loops", ("--forms", *forms, *metrics), **where)]
    by_metrics = ("--metrics", "4", "256", "--steps-ms", "10")
    return [
        Measurement("loops", ("--forms", *forms), **where),
        Measurement("loops", ("--forms", *forms, *by_metrics), **where),
    ]


def quick() -> list[Measurement]:
    """One small case of each kind, to see that it runs."""
    cell = ("--metrics", "4", "--steps-ms", "1", "--rounds", "2", "--forms")
    return [
        Measurement("loops", (*cell, "scan", "python")),
        Measurement("writers", ("--rows", "50", "--rounds", "2", "--without-wandb")),
        Measurement("reading", ("--rows", "2000", "--rounds", "2")),
        Measurement("counts", ("--devices", "2", "--metrics", "4"), devices=2),
    ]
