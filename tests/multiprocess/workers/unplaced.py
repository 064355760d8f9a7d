"""Joins under a launcher that says nothing of places on a host, and reports the GPU it takes."""

import os

import jax

import lerax_dist as ld
from tests.multiprocess.launch import report

# Only Open MPI's own library needs them else.
for name in ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"):
    os.environ.pop(name)
group = ld.initialize(timeout=60)
report(
    {
        "process": group.process_index,
        "taken": jax.config.values["jax_cuda_visible_devices"],
    }
)
