"""Launchers that use PMI and set no variable of their own name: MPICH's Hydra and Intel MPI."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Launch

_HYDRA_LOCAL_NAMES = ("MPI_LOCALRANKID", "MPI_LOCALNRANKS")
_CRAY_LOCAL_NAMES = ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")


@final
class PMI(AbstractLauncher):
    """`mpirun` or `mpiexec` of MPICH, Intel MPI and others that set `PMI_RANK` and `PMI_SIZE`."""

    name = "mpich"
    join = "mpi"
    names = ("PMI_RANK", "PMI_SIZE")

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        hydra = "MPI_LOCALRANKID" in environ
        launch = self.read(environ, _HYDRA_LOCAL_NAMES if hydra else _CRAY_LOCAL_NAMES)
        if launch is None or in_hydra(environ):
            return launch
        # `srun --mpi=pmi2`, the default of many clusters whether a program uses MPI or not: SLURM
        # itself is the launcher, and joining needs no MPI library.
        step = (environ.get("SLURM_PROCID"), environ.get("SLURM_STEP_NUM_TASKS"))
        is_srun = step == (str(launch.process_index), str(launch.process_count))
        return None if is_srun else launch


def in_hydra(environ: Mapping[str, str]) -> bool:
    """Whether MPICH's Hydra or Intel MPI started this process, maybe inside another launcher."""
    return "MPI_LOCALNRANKS" in environ


def other_pmi(environ: Mapping[str, str], index: str, count: str | None = None) -> bool:
    """Whether PMI names another process than a launcher that sets PMI's variables, too.

    Then `mpirun` started this process inside a task of that launcher. `index` and `count` are by
    the launcher's variables.
    """
    rank, size = environ.get("PMI_RANK", index), environ.get("PMI_SIZE", count)
    return rank != index or (count is not None and size != count)
