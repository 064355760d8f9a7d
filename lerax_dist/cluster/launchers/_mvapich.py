"""MVAPICH's own launcher, `mpirun_rsh`; its `mpiexec` sets PMI's variables.

By the documented variables of MVAPICH2; no test runs it.
"""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Launch

_NAMES = ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE")
_LOCAL_NAMES = ("MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE")


@final
class Mvapich(AbstractLauncher):
    """`mpirun_rsh` of MVAPICH2."""

    name = "mvapich"
    join = "mpi"

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        return self.read(environ, _NAMES, _LOCAL_NAMES)
