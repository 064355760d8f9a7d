"""`mpirun` of Open MPI 4 and 5."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Launch

_NAMES = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
_LOCAL_NAMES = ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")


@final
class OpenMPI(AbstractLauncher):
    """Open MPI's `mpirun`. In a SLURM or Flux job its processes have variables of both."""

    name = "openmpi"
    join = "mpi"
    launch_variables = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        return self.read(environ, _NAMES, _LOCAL_NAMES)
