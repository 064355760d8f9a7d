"""`mpirun` of Open MPI 4 and 5."""

from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher


@final
class OpenMPI(AbstractLauncher):
    """Open MPI's `mpirun`. In a SLURM or Flux job its processes have variables of both."""

    name = "openmpi"
    join = "mpi"
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    local_names = ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    launch_variables = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")
