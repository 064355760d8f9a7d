"""A joined process that runs its script again, by `exec` or as a launch of its own.

Arguments: "exec", "mpirun" or "again" (what is run), then a folder.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import lerax_dist as ld
from tests.multiprocess.launch import report, reports

how, folder = sys.argv[1], Path(sys.argv[2])
command = [sys.executable, __file__, "again", str(folder)]
if how == "again":
    (folder / str(os.getpid())).touch()
group = ld.initialize(timeout=60)
if how == "exec":
    pids: list[int] | None = group.gather(os.getpid(), timeout=60, what="who restarts")
    limit = time.monotonic() + 60
    # JAX would end the other process if its service went first.
    while pids is not None and not (folder / str(pids[1])).exists():
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.execv(sys.executable, command)
inside = None
if how == "mpirun" and group.is_writer:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "mpirun"), "-n", "2", *command],
        capture_output=True,
        text=True,
        timeout=90,
    )
    inside = {"returncode": done.returncode, "stderr": done.stderr}
    inside["counts"] = [values["count"] for values in reports(done.stdout)]
group.barrier(timeout=120, what="the launch inside")
count, launcher = group.process_count, group.launcher
values = {"process": group.process_index, "count": count, "launcher": launcher}
report({**values, "pid": os.getpid(), "how": how, "inside": inside})
