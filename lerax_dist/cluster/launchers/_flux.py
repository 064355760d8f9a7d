"""Flux: `flux run` and `flux submit`.

By the variables that flux-environment(7) of flux-core documents; no test runs Flux itself.
"""

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
from lerax_dist.cluster.launchers._pmi import in_hydra, other_pmi


@final
class Flux(AbstractLauncher):
    """A task of a Flux job. A `flux batch` script and a `flux alloc` shell are one process.

    Flux sets PMI's variables for every task, whether the program uses MPI or not. Under SLURM its
    tasks inherit SLURM's variables from the shell that submitted them. Both say less than Flux's.
    """

    name = "flux"
    starter = "flux run"
    checks_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        names = ("FLUX_TASK_RANK", "FLUX_JOB_SIZE")
        if not all(name in environ for name in names):
            return None
        if in_hydra(environ) or other_pmi(environ, *(environ[name] for name in names)):
            return None  # `mpirun` inside a task
        index, count = read_index(environ, *names)
        return Launch(
            self.name,
            *(index, count),
            local_index=read_optional(environ, "FLUX_TASK_LOCAL_ID"),
            local_count=_local_count(count, read_optional(environ, "FLUX_JOB_NNODES")),
            # No variable names the first host of the job: `flux hostlist --local --nth=0` does.
            coordinator=environ.get(JAX_ADDRESS) or None,
            evidence=show_variables(environ, *names),
            join="address or mpi",
        )

    def job(self, environ: Mapping[str, str]) -> Job | None:
        job_id = environ.get("FLUX_JOB_ID")
        # Flux accepts an ASCII "f" as the first character of an id, too; folder names need it.
        return Job(self.name, job_id.replace("ƒ", "f")) if job_id else None

    def unused(self, environ: Mapping[str, str]) -> str:
        # All that a batch script or shell has of Flux; the variables of jobs are unset there.
        seen = show_variables(environ, "FLUX_URI")
        return f"{seen}, but no task of flux run" if seen else ""


def _local_count(count: int, nodes: int | None) -> int | None:
    """Tasks of this node: count / nodes, if all nodes can have the same number.

    Flux spreads tasks evenly unless `--taskmap` or the nodes' free cores say otherwise.
    """
    return count // nodes if nodes and count % nodes == 0 else None
