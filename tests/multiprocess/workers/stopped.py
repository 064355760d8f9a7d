"""Process 1 stops process 0, asks every operation of the group, and lets it go on."""

import os
import signal
import threading
import time
from pathlib import Path

import lerax_dist as ld
from lerax_dist.cluster import JaxGroup
from lerax_dist.cluster._store import Store, joined_client
from tests.multiprocess.launch import report

LIMIT = 1.0
OVER = "test/over"


def stop(pid: int) -> None:
    """Stop a process, and wait until all of its threads stand still."""
    os.kill(pid, signal.SIGSTOP)
    while True:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        if all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats):
            return


group = ld.initialize(timeout=60)
index = group.process_index
pid = group.broadcast(os.getpid(), timeout=60, what="whom to stop")
store = Store(joined_client())
errors: dict[str, str] = {}
hanging = 0
if index == 0:
    assert store.get(OVER, time.monotonic() + 100) is not None
else:
    stop(pid)
    for name, operate in {
        "broadcast": lambda: group.broadcast(None, timeout=LIMIT, what="a name"),
        "gather": lambda: group.gather(1, timeout=LIMIT, what="a number"),
        "barrier": lambda: group.barrier(timeout=LIMIT, what="the end"),
    }.items():
        try:
            operate()
        except TimeoutError as error:
            errors[name] = str(error)
    hanging = sum(thread.name == "lerax_dist-store" for thread in threading.enumerate())
    os.kill(pid, signal.SIGCONT)
    store.put(OVER, "")
again = JaxGroup().gather(index, timeout=60, what="who goes on")
report({"process": index, "errors": errors, "hanging": hanging, "again": again})
