"""Joins, then asks every operation of the group, also from a thread and in a second group."""

import logging
import sys
import threading
from typing import Any

import jax

import lerax_dist.cluster as cluster
from tests.multiprocess.launch import report

lines: list[str] = []


class Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        lines.append(record.getMessage())


logging.getLogger("lerax_dist").addHandler(Lines())
logging.getLogger("lerax_dist").setLevel(logging.INFO)

kind = sys.argv[1]
if kind == "jax":
    group = cluster.initialize(timeout=60)
    another = cluster.JaxGroup()
else:
    group = cluster.MPIGroup(timeout=60)
    another = cluster.MPIGroup(timeout=60)

index = group.process_index
name = group.broadcast(
    {"name": f"run of {index}", "shape": (2, 3), "loss": float("nan")}, timeout=30, what="the name"
)
# Operations of two groups mix in a different order on each process.
first, second = (group, another) if index == 0 else (another, group)
mixed = {}
for one in (first, second):
    mixed[one is group] = one.gather([index, one is group], timeout=30, what="who is here")
group.barrier(timeout=30, what="the first barrier")
for step in range(50):
    group.gather({"step": step, "index": index}, timeout=30, what="rows")
big = group.broadcast("x" * 1_000_000 if index == 0 else None, timeout=30, what="much text")
big_rows = group.gather("y" * 300_000, timeout=30, what="much text of each")
in_thread: list = []
thread = threading.Thread(
    target=lambda: in_thread.append(group.gather(index, timeout=30, what="rows of a thread"))
)
thread.start()
thread.join()
group.barrier(timeout=30, what="the end")

left: list[str] = []
same = joined = None
if kind == "jax":
    from jax._src import distributed

    client: Any = distributed.global_state.client
    # Who takes part in this has left the barrier, and so has cleaned up behind it.
    group.gather(None, timeout=30, what="what is left")
    if index == 0:
        left = [key for key, _ in client.key_value_dir_get("lerax_dist/groups")]
    same = cluster.initialize() is group and cluster.current_group() is group
    joined = [jax.process_index(), jax.process_count(), jax.device_count()]
report(
    {
        "process": index,
        "count": group.process_count,
        "launcher": group.launcher,
        "writer": group.is_writer,
        "is_group": isinstance(group, cluster.ProcessGroup),
        "name": [name["name"], name["shape"], name["loss"] != name["loss"]],
        "gathered": mixed[True],
        "gathered_by_another": mixed[False],
        "in_thread": in_thread[0],
        "big": len(big),
        "big_rows": None if big_rows is None else [len(row) for row in big_rows],
        "left": left,
        "same": same,
        "joined": joined,
        "lines": lines,
        "mpi": "mpi4py.MPI" in sys.modules,
    }
)
