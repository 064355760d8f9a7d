"""Logs a row, forks a worker that outlives it, and is killed. Argument: log_dir."""

import os
import signal
import sys

import lerax_dist as ld

logger = ld.Logger(ld.NoOpBackend(), "my-run", log_dir=sys.argv[1])
logger.log({"loss": 1.0}, 0)
logger.flush()
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    # All of it does nothing in a fork, and waits for nothing.
    logger.log({"loss": 2.0}, 1)
    logger.log_hparams({"lr": 1.0})
    logger.flush()
    logger.close()
    assert not logger.preempted
    os.write(write, b"done")
    signal.pause()
assert os.read(read, 4) == b"done"
logger.log({"loss": 3.0}, 1)
logger.flush()
print(pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
