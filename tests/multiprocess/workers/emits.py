"""Logs from inside compiled code: one program over all processes in each way, then one in each.

Argument: log_dir.
"""

import functools as ft
import sys
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.multiprocess.launch import report

STEPS = 20
# (step, device, value)
DATA = np.random.default_rng(0).normal(size=(STEPS, 4, 3)).astype(np.float32)


def send(logger, values, step):
    row = {
        "mean": ld.Mean.of(values),
        "sum": ld.Sum(values.sum()),
        "worst": ld.Max(values.max()),
        "best": ld.Min(values.min()),
        "first": ld.Last(values.ravel()[0]),
        "plain": values.mean(),
    }
    logger.emit({"train": row}, (step, 2**28))


def train(logger, data):
    """The rows of two kinds, several of which one program sends."""

    def body(step, values):
        send(logger, values, step)
        lax.cond(
            step % 5 == 0,
            lambda: logger.emit({"eval": {"highest": ld.Max(values.max())}}, step),
            lambda: None,
        )
        return step + 1, None

    return lax.scan(body, jnp.zeros((), jnp.int32), data)[0]


def run(how, logger, mesh):
    def whole(array, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    if how == "pmap":
        first = jax.process_index() * jax.local_device_count()
        mine = np.moveaxis(DATA, 1, 0)[first : first + jax.local_device_count()]
        return jax.pmap(lambda data: train(logger, data), axis_name="i")(mine)
    program: Any = ft.partial(train, logger)
    if how != "jit":
        program = jax.shard_map(
            program, mesh=mesh, in_specs=P(None, "a"), out_specs=P(), check_vma=how == "checked"
        )
    return jax.jit(program)(whole(DATA, P(None, "a")))


def main():
    (log_dir,) = sys.argv[1:]
    group = ld.initialize()
    said = {}
    for how in ("jit", "checked", "unchecked", "pmap", "each"):
        backends = [ld.TensorBoardBackend(log_dir), ld.JSONLBackend(log_dir)]
        scope = "process" if how == "each" else "global"
        kind = ld.LoggingCallback if how in ("pmap", "each") else ld.Logger
        with kind(backends, how, scope=scope) as logger:
            if how == "each":
                mesh = Mesh(np.array(jax.local_devices()), ("a",), axis_types=(AxisType.Auto,))
                mine = np.split(DATA, group.process_count, axis=1)[group.process_index]
                program = jax.shard_map(
                    lambda data: train(logger, data), mesh=mesh, in_specs=P(None, "a"),
                    out_specs=P(),
                )  # fmt: skip
                jax.block_until_ready(jax.jit(program)(mine))
                # Outside of compiled code, each process by itself.
                logger.emit({"alone": float(group.process_index)}, 3)
            else:
                mesh = Mesh(np.array(jax.devices()), ("a",), axis_types=(AxisType.Auto,))
                jax.block_until_ready(run(how, logger, mesh))
                try:
                    logger.emit({"x": 1.0}, 0)
                except RuntimeError as error:
                    said[f"{how}: refused"] = str(error)
        said[how] = [failure.message for failure in logger.failures]
    report({"process": group.process_index, "said": said})


if __name__ == "__main__":
    main()
