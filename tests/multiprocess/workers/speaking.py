"""Every process logs through `get_logger`, before, in and after a run.

Arguments: log_dir.
"""

import os
import sys
import warnings

import lerax_dist as ld
from tests.memory import Memory
from tests.multiprocess.launch import report

log_dir = sys.argv[1]
ld.setup_logging()
ld.setup_logging()
log = ld.get_logger("train")
log.info("before anything")
group = ld.initialize()
me = group.process_index
log.info("hello from %d", me)
with ld.Logger(Memory(), "r", log_dir=log_dir) as logger:
    for step in range(5):
        log.info("step %d", step)
    if me == 1:
        for step in range(30):
            log.warning("odd %d", step)
        try:
            raise ValueError("on purpose")
        except ValueError:
            log.exception("broken")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        if os.fork() == 0:
            log.info("from a forked process")
            os._exit(0)
        os.wait()
    # Process 0 closes last, so that it has something to tell.
    if me == 1:
        logger.close()
    group.barrier(timeout=60, what="the end of process 1's run")
log.info("after")
report({"process": me, "run_dir": str(logger.run_dir)})
