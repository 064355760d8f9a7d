"""`jsrun`, the Job Step Manager of IBM's LSF.

By the documented variables of the Job Step Manager; no test runs it.
"""

from typing import final

from lerax_dist.cluster.launchers._base import AbstractLauncher


@final
class Jsrun(AbstractLauncher):
    """A task of `jsrun`. With Spectrum MPI its tasks have Open MPI's variables, too."""

    name = "jsrun"
    # No variable names the host of task 0: the first host of the job only runs the script.
    join = "address or mpi"
    names = ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")
    local_names = ("JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE")
    starter = "jsrun"
    job_variables = ("LSB_JOBID",)
    launch_variables = ("LSB_JOBID",)
