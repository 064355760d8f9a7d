"""MVAPICH's own launcher, `mpirun_rsh`; its `mpiexec` sets PMI's variables.

By the documented variables of MVAPICH2; no test runs it.
"""

from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher


@final
class Mvapich(AbstractLauncher):
    """`mpirun_rsh` of MVAPICH2."""

    name = "mvapich"
    join = "mpi"
    names = ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE")
    local_names = ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE")
