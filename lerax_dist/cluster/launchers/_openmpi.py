"""`mpirun` of Open MPI 4 and 5."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    AbstractLauncher,
    Launch,
    read_index,
    read_optional,
    show_variables,
)


@final
class OpenMPI(AbstractLauncher):
    """Open MPI's `mpirun`. In a SLURM or Flux job its processes carry variables of both."""

    name = "openmpi"
    checks_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
        if not all(name in environ for name in names):
            return None
        index, count = read_index(environ, *names)
        return Launch(
            self.name,
            *(index, count),
            local_index=read_optional(environ, "OMPI_COMM_WORLD_LOCAL_RANK"),
            local_count=read_optional(environ, "OMPI_COMM_WORLD_LOCAL_SIZE"),
            coordinator=None,
            evidence=show_variables(environ, *names),
            join="mpi",
        )
