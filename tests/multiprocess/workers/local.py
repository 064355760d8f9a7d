"""Every process has values of its own in one joined run of plain loops.

Argument: log_dir.
"""

import sys
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.multiprocess.launch import report

STEPS = 20
LOSSES = np.random.default_rng(0).normal(size=(4, STEPS, 5))


def replicated(value):
    """One value of all processes."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",), axis_types=(AxisType.Auto,))
    return jax.device_put(jnp.float32(value), NamedSharding(mesh, P()))


def merged(logger, index):
    """Partials of NumPy, Python and JAX, with a plain value beside them."""
    for step in range(STEPS):
        # Process 1 has fewer values, and none at step 3.
        losses = LOSSES[index, step, : 0 if (index, step) == (1, 3) else 5 - index]
        metrics = {
            "mean": ld.Mean.of(losses),
            "on_device": ld.Mean.of(jnp.asarray(losses)),
            "sum": {"tokens": ld.Sum(2**40 + index), "shared": ld.Sum(replicated(7.0))},
            "max": ld.Max(float(index)),
            "min": ld.Min(np.float32(index + 1)),
            "last": ld.Last(0.1 + index),
            "plain": step + 0.5,
        }
        logger.log(metrics, step)


def differs(logger, index):
    """Plain values: `loss` and `late` differ, the others do not."""
    for step in range(STEPS):
        same = {"same": step, "nan": np.nan, "one": replicated(3.0), "array": jnp.float32(step)}
        logger.log({"loss": jnp.float32(10.0 * (index + 1)), **same}, step)
        if index == 0:
            logger.log({"of_process_0": 1.0}, step)
        # Another number of calls of each process.
        for _ in range(index):
            logger.log({f"of_process_{index}": 1.0}, step)
    logger.log({"evaluation": {"late": float(index)}}, STEPS)


def alone(logger, index):
    if index == 0:
        for step in range(STEPS):
            logger.log({"loss": step}, step)


def alone_with_partials(logger, index):
    if index == 0:
        for step in range(STEPS):
            logger.log({"loss": ld.Mean(step, 1)}, step)


def main(log_dir):
    warnings.simplefilter("ignore", ld.LoggingWarning)
    group = ld.initialize()
    said: dict[str, Any] = {"process": group.process_index}
    for scenario in (merged, differs, alone, alone_with_partials):
        backends = [ld.TensorBoardBackend(log_dir), ld.JSONLBackend(log_dir)]
        logger = ld.Logger(backends, scenario.__name__, log_dir=log_dir)
        scenario(logger, group.process_index)
        if scenario is differs:
            # A training takes longer than a sample does.
            deadline = time.monotonic() + 30.0
            while group.is_writer and len(logger.failures) < 3 and time.monotonic() < deadline:
                time.sleep(0.02)
        group.barrier(timeout=60.0, what="the end of a scenario")
        begin = time.monotonic()
        logger.close()
        failures = [f"{each.where}: {each.message}" for each in logger.failures]
        said[scenario.__name__] = [time.monotonic() - begin, failures]
    report(said)


if __name__ == "__main__":
    main(sys.argv[1])
