"""Starts the devices and lets all of them work together. On the main thread, in every process."""

import statistics
import time

from lerax_dist.cli._facts import Collective, Devices

_REPEATS = 20


def start_devices() -> Devices:
    """Start the devices of this process, and tell what they are.

    Raises:
        RuntimeError: they cannot be started.
    """
    import jax

    local = jax.local_devices()
    return Devices(
        local[0].platform,
        local[0].device_kind,
        len(local),
        jax.device_count(),
        jax.process_index(),
        jax.process_count(),
        jax.config.values["jax_platforms"] or "",
    )


def sum_over_devices() -> Collective:
    """Sum one number of every device over all devices, and time it.

    Every process calls this, as often as the others.
    """
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    start = time.perf_counter()
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("all",))
    numbers = np.arange(1, len(devices) + 1, dtype=np.int32)
    sharded = jax.make_array_from_callback(
        numbers.shape, NamedSharding(mesh, PartitionSpec("all")), lambda index: numbers[index]
    )
    add = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, "all"),
            mesh=mesh,
            in_specs=PartitionSpec("all"),
            out_specs=PartitionSpec(),
        )
    )
    total = int(np.asarray(add(sharded).addressable_data(0))[0])
    first = time.perf_counter() - start
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        add(sharded).block_until_ready()
        times.append(time.perf_counter() - start)
    return Collective(first, statistics.median(times), total == int(numbers.sum()))
