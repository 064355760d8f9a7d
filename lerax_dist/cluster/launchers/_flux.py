"""Flux: `flux run` and `flux submit`.

By the variables that flux-environment(7) of flux-core documents; no test runs Flux itself.
"""

import dataclasses
from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Job, Launch, read_optional
from lerax_dist.cluster.launchers._pmi import in_hydra, other_pmi


@final
class Flux(AbstractLauncher):
    """A task of a Flux job. A `flux batch` script and a `flux alloc` shell are one process.

    Flux sets PMI's variables for every task, whether the program uses MPI or not. Under SLURM its
    tasks inherit SLURM's variables from the shell that submitted them. Both say less than Flux's.
    """

    name = "flux"
    # No variable names the first host of the job: `flux hostlist --local --nth=0` does.
    join = "address or mpi"
    names = ("FLUX_TASK_RANK", "FLUX_JOB_SIZE")
    local_names = ("FLUX_TASK_LOCAL_ID", "")
    starter = "flux run"
    # All that a batch script or shell has of Flux; the variables of jobs are unset there.
    job_variables = ("FLUX_URI",)
    launch_variables = ("FLUX_JOB_ID",)

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        launch = self.read(environ)
        if launch is None or launch.process_count is None:
            return None
        if in_hydra(environ) or other_pmi(environ, *(environ[name] for name in self.names)):
            return None  # `mpirun` inside a task
        nodes = read_optional(environ, "FLUX_JOB_NNODES")
        if not nodes:
            return launch
        # Flux spreads tasks evenly unless `--taskmap` or the nodes' free cores say otherwise.
        tasks, left = divmod(launch.process_count, nodes)
        return dataclasses.replace(launch, local_count=None if left else tasks)

    def job(self, environ: Mapping[str, str]) -> Job | None:
        job_id = environ.get("FLUX_JOB_ID")
        # Flux accepts an ASCII "f" as the first character of an id, too; folder names need it.
        return Job(self.name, job_id.replace("ƒ", "f")) if job_id else None
