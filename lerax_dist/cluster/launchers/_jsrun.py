"""`jsrun`, the Job Step Manager of IBM's LSF.

By the documented variables of the Job Step Manager; no test runs it.
"""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher, Launch

_NAMES = ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")
_LOCAL_NAMES = ("JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE")


@final
class Jsrun(AbstractLauncher):
    """A task of `jsrun`. With Spectrum MPI its tasks have Open MPI's variables, too."""

    name = "jsrun"
    # No variable names the host of task 0: the first host of the job only runs the script.
    join = "address or mpi"
    starter = "jsrun"
    job_variables = ("LSB_JOBID",)
    launch_variables = ("LSB_JOBID",)

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        return self.read(environ, _NAMES, _LOCAL_NAMES)
