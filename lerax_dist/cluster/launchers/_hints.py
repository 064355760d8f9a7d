"""Variables that look like a launcher's but do not say which process this is of how many."""

import re
from collections.abc import Mapping

from lerax_dist.cluster.launchers._base import read_optional, show_variables

# Each with the least value that shows that there are several processes. A batch script of PBS is
# task 1; `pbsdsh` starts the others. `aprun` gives each process its index only.
_HINTS = {
    **{"NNODES": 2, "NODE_RANK": 1, "WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1},
    **{"PMIX_RANK": 1, "ALPS_APP_PE": 1, "PBS_TASKNUM": 2},
}
_LOOKS = re.compile(
    r"(RANK|RANKID|WORLD_SIZE|LOCAL_SIZE|JOB_SIZE|PMI_SIZE|NAMESPACE_SIZE|NNODES|NUM_NODES|NTASKS"
    r"|NPROCS|NUM_TASKS|NUM_PROCESSES|PROCID|PROCESS_ID|TASKNUM|TASK_INDEX|APP_PE|WORKER_ID"
    r"|COMPLETION_INDEX)$"
)


def hint_of_launch(environ: Mapping[str, str]) -> str:
    """Variables by which this is one of several processes, where no launcher was recognized.

    E.g. "NODE_RANK=1 NNODES=2"; empty if there are none.
    """
    seen = (name for name, least in _HINTS.items() if (read_optional(environ, name) or 0) >= least)
    return show_variables(environ, *seen)


def list_variables(environ: Mapping[str, str]) -> str:
    """Every variable that looks like the index of a process or their number."""
    return show_variables(environ, *sorted(filter(_LOOKS.search, environ)))
