"""Joins under a launcher that does not say the local index, and reports the GPU it takes."""

import os

import jax

import lerax_dist as ld
from tests.multiprocess.launch import report

# Only Open MPI's own library needs them otherwise.
for name in ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"):
    os.environ.pop(name)
group = ld.initialize(timeout=60)
report(
    {
        "process": group.process_index,
        "taken": jax.config.values["jax_cuda_visible_devices"],
    }
)
