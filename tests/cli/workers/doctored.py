"""`lerax-dist` in a process that is not as it should be. How, says the first argument."""

import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from lerax_dist.cli import main
from lerax_dist.cli.doctor import _clocks, _collective, _devices
from lerax_dist.cluster import detect
from tests.multiprocess.meet import meet

how, *arguments = sys.argv[1:]
launch = detect(os.environ)
index = launch.process_index or 0
for_ever = threading.Event()
meet(index, launch.process_count or 1)

if how == "elsewhere":
    folder = Path(f"process{index}")
    folder.mkdir()
    os.chdir(folder)
    if index == 1:
        _clocks.time = SimpleNamespace(time=lambda: time.time() + 4.2)
elif how == "absent" and index == 2:
    sys.exit(0)
elif how == "before_mpi" and index == 1:
    for_ever.wait()
elif how == "after_mpi" and index == 1:
    from mpi4py import MPI  # noqa: F401  (starts MPI)

    for_ever.wait()
elif how == "collective" and index == 1:
    _collective.sum_over_devices = for_ever.wait
elif how == "no_devices" and index == 1:

    def fail():
        raise RuntimeError("no accelerator found")

    _devices.start_devices = fail

sys.exit(main(arguments))
