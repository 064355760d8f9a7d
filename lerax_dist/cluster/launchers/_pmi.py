"""Launchers that speak PMI and have no name of their own: MPICH's Hydra and Intel MPI."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    AbstractLauncher,
    Launch,
    read_index,
    read_optional,
    show_variables,
)

_NAMES = ("PMI_RANK", "PMI_SIZE")
_HYDRA_LOCAL_COUNT = "MPI_LOCALNRANKS"


@final
class PMI(AbstractLauncher):
    """`mpirun` or `mpiexec` of MPICH, Intel MPI and others that set `PMI_RANK` and `PMI_SIZE`."""

    name = "mpich"
    checks_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        if not all(name in environ for name in _NAMES):
            return None
        index, count = read_index(environ, *_NAMES)
        step = (environ.get("SLURM_PROCID"), environ.get("SLURM_STEP_NUM_TASKS"))
        if step == (str(index), str(count)) and not in_hydra(environ):
            # `srun --mpi=pmi2`, the default of many clusters whether a program uses MPI or not:
            # SLURM itself is the launcher, and joining needs no MPI library.
            return None
        # Hydra's names, then those of Cray's launchers.
        hydra = "MPI_LOCALRANKID" in environ
        return Launch(
            self.name,
            *(index, count),
            local_index=read_optional(environ, "MPI_LOCALRANKID" if hydra else "PMI_LOCAL_RANK"),
            local_count=read_optional(environ, _HYDRA_LOCAL_COUNT if hydra else "PMI_LOCAL_SIZE"),
            coordinator=None,
            evidence=show_variables(environ, *_NAMES),
            join="mpi",
        )


def in_hydra(environ: Mapping[str, str]) -> bool:
    """Whether MPICH's Hydra or Intel MPI started this process, maybe inside another launcher."""
    return _HYDRA_LOCAL_COUNT in environ


def other_pmi(environ: Mapping[str, str], index: str, count: str | None = None) -> bool:
    """Whether PMI names another process than a launcher that sets PMI's variables, too.

    Then `mpirun` started this process inside a task of that launcher.

    Args:
        environ: environment variables.
        index: this process's index by the launcher's own variable.
        count: likewise the number of processes, `None` if it has no variable for it.
    """
    rank, size = environ.get("PMI_RANK", index), environ.get("PMI_SIZE", count)
    return rank != index or (count is not None and size != count)
