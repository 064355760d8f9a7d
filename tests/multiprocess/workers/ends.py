"""A run that ends in some way: what each process does after `STEPS` steps says its argument.

Arguments: log_dir, heartbeat limit, shutdown limit, then one way to end per process, e.g. `ok`.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from lerax_dist.cluster._store import Store, joined_client
from lerax_dist.cluster.liveness._monitor import FOLDER
from tests.memory import Memory

STEPS = 20
# Longer than the liveness timeout (3 s) and the time after which a process is lost (4.5 s).
STALL = 8


def tell(**values: object) -> None:
    """One line for the test, at once, as the process may be ended soon."""
    os.write(1, f"\n{json.dumps(values)}\n".encode())


def wait_until_finished(process: int) -> None:
    """Work that continues until another process has published how it ended."""
    limit = time.monotonic() + 60.0
    assert Store(joined_client()).get(f"{FOLDER}/ends/{process}", limit) is not None


def main() -> None:
    log_dir, heartbeat, shutdown, *ways = sys.argv[1:]
    group = ld.initialize(
        timeout=60,
        heartbeat_timeout_seconds=int(heartbeat),
        shutdown_timeout_seconds=int(shutdown),
    )
    index = group.process_index
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, P("d"))
    here = np.full(jax.local_device_count(), float(index + 1), np.float32)
    values = jax.make_array_from_process_local_data(whole, here)

    @jax.jit
    def mean(values, step):
        return jnp.mean(values) + step

    logger = ld.Logger(Memory(), "r", log_dir=log_dir)
    way = ways[index]
    for step in range(10**9):
        if step == STEPS:
            tell(process=index, steps=step, time=time.time())
            if way == "raise":
                raise ValueError("a wrong turn")
            if way == "kill":
                logger.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            if way == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if way in ("stall", "stall_last"):
                ctypes.PyDLL(None).sleep(STALL)  # with the GIL
            if way == "exit3":
                sys.exit(3)
            if way == "hang":
                threading.Event().wait()
            if way in ("ok", "stall_last"):
                return
            if way == "later":
                wait_until_finished(0)
                logger.close()
                return
            if way == "after_1":
                wait_until_finished(1)
                return
        if step == 2 * STEPS and way in ("stall", "on"):
            return
        value = jax.block_until_ready(mean(values, jnp.float32(step)))
        logger.log({"mean": value}, step)
        if step > STEPS:
            tell(process=index, steps=step + 1, time=time.time())


main()
