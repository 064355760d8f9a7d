"""Writes a run, prints that, and waits for a command to continue, or for SIGKILL."""

import sys

import lerax_dist as ld

logger = ld.Logger(ld.NoOpBackend(), sys.argv[2], log_dir=sys.argv[1])
for step in range(5):
    logger.log({"train": {"loss": 8.0 - step}, "episode": {"return": 10.0 * step}}, 100 * step)
logger.flush()
print("written", flush=True)
sys.stdin.readline()
