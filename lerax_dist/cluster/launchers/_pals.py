"""PBS with HPE Cray's PALS (Parallel Application Launch Service): `mpiexec` and `aprun`.

By the documented variables of PALS and PBS; no test runs them.
"""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Job, Launch
from lerax_dist.cluster.launchers._pmi import other_pmi


@final
class PALS(AbstractLauncher):
    """A rank of PALS' `mpiexec`, usually in a PBS job.

    PALS has no variable for the number of processes, but sets `PMI_SIZE`. With
    `mpiexec --pmi=pmix` that is unset, and only MPI knows it.
    """

    name = "pals"
    # No variable names the host of rank 0; the first line of $PBS_NODEFILE does, but that file need
    # not be on every host.
    join = "address or mpi"
    names = ("PALS_RANKID", "PMI_SIZE")
    starter = "mpiexec"
    job_variables = ("PBS_JOBID",)
    launch_variables = ("PBS_JOBID", "PALS_APID")

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        if other_pmi(environ, environ.get("PALS_RANKID", "")):
            return None  # `mpirun` inside a rank
        of_pals = "PALS_LOCAL_SIZE" in environ
        local_names = ("PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE" if of_pals else "PMI_LOCAL_SIZE")
        return self.read(environ, local_names, count_is_required=False)

    def job(self, environ: Mapping[str, str]) -> Job | None:
        job_id = environ.get("PBS_JOBID")
        return Job("pbs", job_id) if job_id else None
