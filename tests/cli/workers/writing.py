"""Writes a run, a row for each command; ends by SIGKILL on the command to die."""

import os
import signal
import sys

import lerax_dist as ld

logger = ld.Logger(ld.NoOpBackend(), sys.argv[2], log_dir=sys.argv[1], total_steps=1000)
step = 0
for command in sys.stdin:
    match command.strip():
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "end":
            break
        case count:
            for _ in range(int(count)):
                step += 10
                logger.log(
                    {"train": {"loss": 1.0 / step}, "episode": {"return": float(step)}}, step
                )
            logger.flush()
    print("done", flush=True)
logger.close()
print("closed", flush=True)
