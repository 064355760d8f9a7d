"""PBS with HPE Cray's PALS (Parallel Application Launch Service): `mpiexec` and `aprun`.

By the documented variables of PALS and PBS; no test runs them.
"""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    JAX_ADDRESS,
    AbstractLauncher,
    Job,
    Launch,
    read_index,
    read_number,
    read_optional,
    show_variables,
)
from lerax_dist.cluster.launchers._pmi import other_pmi


@final
class PALS(AbstractLauncher):
    """A rank of PALS' `mpiexec`, usually in a PBS job.

    PALS has no variable of its own for the number of processes; `PMI_SIZE` says it. With
    `mpiexec --pmi=pmix` that is unset, and MPI has to tell it.
    """

    name = "pals"
    starter = "mpiexec"
    checks_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        names = ("PALS_RANKID", "PMI_SIZE")
        if "PALS_RANKID" not in environ or other_pmi(environ, environ["PALS_RANKID"]):
            return None  # else `mpirun` inside a rank
        if "PMI_SIZE" in environ:
            index, count = read_index(environ, *names)
        else:
            index, count = read_number(environ, "PALS_RANKID"), None
        return Launch(
            self.name,
            *(index, count),
            local_index=read_optional(environ, "PALS_LOCAL_RANKID"),
            local_count=_local_count(environ),
            # No variable names the host of rank 0; the first line of $PBS_NODEFILE does, but that
            # file need not be on every host.
            coordinator=environ.get(JAX_ADDRESS) or None,
            evidence=show_variables(environ, *names),
            join="address or mpi",
        )

    def job(self, environ: Mapping[str, str]) -> Job | None:
        job_id = environ.get("PBS_JOBID")
        return Job("pbs", job_id) if job_id else None

    def unused(self, environ: Mapping[str, str]) -> str:
        seen = show_variables(environ, "PBS_JOBID")
        return f"{seen}, but no rank of mpiexec" if seen else ""


def _local_count(environ: Mapping[str, str]) -> int | None:
    for name in ("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"):
        count = read_optional(environ, name)
        if count is not None:
            return count
    return None
