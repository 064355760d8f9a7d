"""A process as a launcher starts it: the doctor's look at the launch, then a short run.

Arguments: log_dir.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from lerax_dist.cli import main as command
from tests.multiprocess.launch import report


def main() -> None:
    log_dir = sys.argv[1]
    # It joins; joining twice is joining once.
    status = command(["doctor", "--json", "--log-dir", log_dir, "--timeout", "60"])
    group = ld.initialize()
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",), axis_types=(AxisType.Auto,))
    here = np.full(jax.local_device_count(), float(group.process_index + 1), np.float32)
    values = jax.make_array_from_process_local_data(NamedSharding(mesh, P("d")), here)
    mean = jax.jit(lambda values, step: jnp.mean(values) + step)
    with ld.Logger(ld.JSONLBackend(log_dir), "run", log_dir=log_dir) as logger:
        for step in range(5):
            logger.log({"mean": mean(values, jnp.float32(step))}, step)
    report(
        {
            "process": group.process_index,
            "count": group.process_count,
            "devices": jax.device_count(),
            "launcher": group.launcher,
            "host": group.hostname,
            "doctor": status,
        }
    )


main()
