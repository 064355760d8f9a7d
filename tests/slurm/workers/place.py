"""Joins, logs three rows and reports where it is. Arguments: anything, which it reports.

With LERAX_DIST_TEST_FORGET it does not join.
"""

import os
import sys

import jax

import lerax_dist as ld
from tests.multiprocess.launch import report


def log() -> ld.Logger:
    with ld.Logger(ld.JSONLBackend("logs"), "run") as logger:
        for step in range(3):
            logger.log({"loss": 1.0 / (step + 1)}, step)
    return logger


if os.environ.get("LERAX_DIST_TEST_FORGET"):
    try:
        log()
    except RuntimeError as error:
        report({"process": int(os.environ["SLURM_PROCID"]), "error": str(error)})
    sys.exit()

group = ld.initialize(timeout=60)
report(
    {
        "process": group.process_index,
        "count": group.process_count,
        "launcher": group.launcher,
        "joined": [jax.process_index(), jax.process_count()],
        "run_dir": str(log().run_dir),
        "arguments": sys.argv[1:],
        "node": os.environ.get("SLURMD_NODENAME"),
        "shown": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "taken": jax.config.values["jax_cuda_visible_devices"],
    }
)
