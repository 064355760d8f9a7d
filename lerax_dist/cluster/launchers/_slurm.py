"""SLURM: `srun`."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    JAX_ADDRESS,
    AbstractLauncher,
    Job,
    Launch,
    read_index,
    read_optional,
    show_variables,
)

# Steps that SLURM makes by itself: interactive shell, batch script, external. Their SLURM_PROCID is
# 0 although `srun` launched nothing.
_OWN_STEPS = ("4294967290", "4294967291", "4294967292")


@final
class Slurm(AbstractLauncher):
    """`srun`. A batch script or an `salloc` shell has the job's variables, but is one process."""

    name = "slurm"
    starter = "srun"
    checks_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        # Not SLURM_NTASKS: that is the job's in a batch script and in an interactive shell.
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
        if not all(name in environ for name in names):
            return None
        if environ.get("SLURM_STEP_ID") in _OWN_STEPS:
            return None
        index, count = read_index(environ, *names)
        node = read_optional(environ, "SLURM_NODEID")
        return Launch(
            self.name,
            *(index, count),
            local_index=read_optional(environ, "SLURM_LOCALID"),
            local_count=tasks_on_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""), node),
            coordinator=environ.get(JAX_ADDRESS) or _coordinator(environ),
            evidence=show_variables(environ, *names),
            join="jax",
            gpus_on_host=read_optional(environ, "SLURM_GPUS_ON_NODE"),
        )

    def job(self, environ: Mapping[str, str]) -> Job | None:
        if not environ.get("SLURM_JOB_ID"):
            return None
        # Unset until the job is requeued for the first time.
        restarts = read_optional(environ, "SLURM_RESTART_COUNT") or 0
        return Job(self.name, environ["SLURM_JOB_ID"], restarts)

    def unused(self, environ: Mapping[str, str]) -> str:
        names = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID")
        seen = show_variables(environ, *names)
        return f"{seen}, but no step of srun" if seen else ""


def _coordinator(environ: Mapping[str, str]) -> str | None:
    """The address that JAX chooses: the first node of the step, and a port from the job's id."""
    node = first_node(environ.get("SLURM_STEP_NODELIST", ""))
    port = read_optional(environ, "JAX_COORDINATOR_PORT")
    if port is None:
        job = read_optional(environ, "SLURM_JOB_ID")
        port = None if job is None else port_of_job(job)
    return f"{node}:{port}" if node and port is not None else None


def port_of_job(job_id: int) -> int:
    """The port that JAX takes for a job, one of the last 4096.

    port = 65536 - 4096 + job_id mod 4096, see `jax/_src/clusters/slurm_cluster.py`.
    """
    return 65536 - 4096 + job_id % 4096


def first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes, e.g. "n007" of "n[007-015],m1"."""
    for i, char in enumerate(nodes):
        if char == ",":
            return nodes[:i]
        if char == "[":
            inner, _, _ = nodes[i + 1 :].partition("]")
            return nodes[:i] + inner.replace("-", ",").split(",")[0]
    return nodes


def tasks_on_node(text: str, node: int | None) -> int | None:
    """Number of tasks on a node from SLURM's list, e.g. "2(x3),1"; `None` if it is unreadable."""
    counts: list[int] = []
    for part in text.split(","):
        tasks, _, times = part.removesuffix(")").partition("(x")
        if not tasks.isdecimal() or not (times or "1").isdecimal():
            return None
        counts += [int(tasks)] * int(times or "1")
    return counts[node] if node is not None and node < len(counts) else None
