"""SLURM: `srun`."""

import dataclasses
from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Job, Launch, read_optional

# Steps that SLURM makes by itself: interactive shell, batch script, external. Their SLURM_PROCID is
# 0 although `srun` launched nothing.
_OWN_STEPS = ("4294967290", "4294967291", "4294967292")
# Ports between those of two steps of a job. Prime, so that steps of other jobs rarely have them.
_STEP_STRIDE = 1009


@final
class Slurm(AbstractLauncher):
    """`srun`. A batch script or an `salloc` shell has the job's variables, but is one process."""

    name = "slurm"
    # Not SLURM_NTASKS: that is the job's in a batch script and in an interactive shell.
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    local_names = ("SLURM_LOCALID", "")
    starter = "srun"
    job_variables = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID")
    launch_variables = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        if environ.get("SLURM_STEP_ID") in _OWN_STEPS:
            return None
        launch = self.read(environ)
        if launch is None:
            return None
        node = read_optional(environ, "SLURM_NODEID")
        return dataclasses.replace(
            launch,
            local_count=tasks_on_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""), node),
            coordinator=launch.coordinator or _coordinator(environ),
            gpus_on_host=read_optional(environ, "SLURM_GPUS_ON_NODE"),
        )

    def job(self, environ: Mapping[str, str]) -> Job | None:
        if not environ.get("SLURM_JOB_ID"):
            return None
        # Unset until the job is requeued for the first time.
        restarts = read_optional(environ, "SLURM_RESTART_COUNT") or 0
        return Job(self.name, environ["SLURM_JOB_ID"], restarts)


def _coordinator(environ: Mapping[str, str]) -> str | None:
    """The first node of the step, and a port from the ids of job and step.

    One of the last 4096. That of step 0 is JAX's, see `jax/_src/clusters/slurm_cluster.py`; steps
    that run side by side in a job each need their own.
    """
    node = first_node(environ.get("SLURM_STEP_NODELIST", ""))
    port = read_optional(environ, "JAX_COORDINATOR_PORT")
    job_id = read_optional(environ, "SLURM_JOB_ID")
    if port is None and job_id is not None:
        step = read_optional(environ, "SLURM_STEP_ID") or 0
        port = 65536 - 4096 + (job_id + _STEP_STRIDE * step) % 4096
    return f"{node}:{port}" if node and port is not None else None


def first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes, e.g. "n007" of "n[007-015],m1"."""
    name, _, numbers = nodes.split(",")[0].partition("[")
    return name + numbers.split("]")[0].split("-")[0]


def tasks_on_node(text: str, node: int | None) -> int | None:
    """Number of tasks on a node from SLURM's list, e.g. "2(x3),1"; `None` if it is unreadable."""
    counts: list[int] = []
    for part in text.split(","):
        tasks, _, times = part.removesuffix(")").partition("(x")
        if not tasks.isdecimal() or not (times or "1").isdecimal():
            return None
        counts += [int(tasks)] * int(times or "1")
    return counts[node] if node is not None and node < len(counts) else None
