"""One process stays away from an operation; the others say who, and later calls are right again."""

import sys
import time
from typing import Any

import lerax_dist.cluster as cluster
from tests.multiprocess.launch import report

kind, operation, away = sys.argv[1], sys.argv[2], int(sys.argv[3])
group = cluster.initialize(timeout=60) if kind == "jax" else cluster.MPIGroup(timeout=60)
guard = cluster.JaxGroup() if kind == "jax" else cluster.MPIGroup(timeout=60)
index = group.process_index


def operate() -> Any:
    if operation == "broadcast":
        return group.broadcast("a name", timeout=2, what="the run's name")
    if operation == "gather":
        return group.gather(index, timeout=2, what="the run's name")
    return group.barrier(timeout=2, what="the run's name")


guard.barrier(timeout=60, what="the start of all")
error, seconds, late_error = "", 0.0, ""
if index != away:
    start = time.monotonic()
    try:
        operate()
    except TimeoutError as caught:
        error = str(caught)
    seconds = time.monotonic() - start
guard.barrier(timeout=30, what="the others' time limit")
if index == away:
    try:
        operate()
    except TimeoutError as caught:
        late_error = str(caught)
guard.barrier(timeout=30, what="the late call")
after = group.gather([index, "after"], timeout=30, what="the next rows")
report(
    {
        "process": index,
        "error": error,
        "seconds": seconds,
        "late_error": late_error,
        "after": after,
        "hostname": group.hostname,
    }
)
