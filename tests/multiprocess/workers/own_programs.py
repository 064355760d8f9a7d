"""Every process runs a program of its own on its share of the known run; process 0 merges.

Arguments: scenario, log_dir, and what else it takes.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.memory import Memory
from tests.multiprocess import scenario
from tests.multiprocess.launch import report
from tests.multiprocess.workers.known_run import train


def whole_training(logger, *data):
    return train(logger, data)


def known(group, log_dir, together):
    """The known run: process p has the p-th share of the environments, on devices of its own."""
    said = {}
    data = (scenario.REWARDS, scenario.DONES, scenario.LOGS)
    mine = [np.split(a, group.process_count, axis=2)[group.process_index] for a in data]
    mesh = jax.sharding.Mesh(
        np.array(jax.local_devices()), ("devices",), axis_types=(AxisType.Auto,)
    )
    for mode in ("shard_map", "jit"):
        with ld.LoggingCallback(
            [ld.TensorBoardBackend(log_dir), ld.JSONLBackend(log_dir)],
            mode,
            alpha=scenario.ALPHA,
            scope="process",
            rows_per_transfer=int(together),
        ) as logger:
            step = functools.partial(whole_training, logger)
            if mode == "shard_map":
                step = jax.shard_map(
                    step,
                    mesh=mesh,
                    in_specs=(P(None, None, "devices"),) * 3 + (P(),),
                    out_specs=P("devices"),
                )
            jax.block_until_ready(jax.jit(step)(*mine, scenario.LEARNING_RATES))
        said[mode] = [failure.message for failure in logger.failures]
    return {"failures": said, "run_dir": str(logger.run_dir), "backends": len(logger.backends)}


def loop(group, log_dir):
    """A plain loop, in which process 1 is slow and process 2 logs something else."""
    with ld.Logger(ld.JSONLBackend(log_dir), "loop", scope="process") as logger:
        for step in range(50):
            metrics = {"rank": float(group.process_index), "same": jnp.float32(step)}
            if group.process_index == 2 and step == 30:
                metrics["more"] = 1.0
            logger.log(metrics, step)
        preempted = logger.preempted
    return {"failures": [f"{f.where}: {f.message}" for f in logger.failures], "told": preempted}


def totals(group, log_dir):
    """How long the training will be, known while tracing and only in the step."""
    memory = Memory()
    states = jax.tree.map(lambda x: x[None], ld.LoggingCallbackStepState.initial())

    def start(total):
        context = ld.TrainingContext(
            ld.EmptyCallbackState(), states, None, None, total, jnp.asarray(0), None
        )
        return logger.on_training_start(context, key=jax.random.key(0))

    with ld.LoggingCallback(memory, "totals", log_dir=log_dir, scope="process") as logger:
        jax.jit(lambda: start(5000))()
        jax.effects_barrier()
        jax.jit(start)(jnp.asarray(2**30))
    return {"calls": memory.calls}


def exits(group, log_dir):
    """No logger is closed."""
    logger = ld.Logger(ld.JSONLBackend(log_dir), "exits", scope="process")
    for step in range(100):
        logger.log({"rank": jnp.float32(group.process_index)}, step)
    return {}


def leaves(group, log_dir):
    """Process 1 fails half way; the others log to the end."""
    logger = ld.Logger(ld.JSONLBackend(log_dir), "leaves", scope="process")
    try:
        with logger:
            for step in range(20):
                if group.process_index == 1 and step == 10:
                    raise ValueError("on purpose")
                logger.log({"rank": float(group.process_index)}, step)
    except ValueError:
        pass
    failures = [f"{f.where}: {f.message}" for f in logger.failures]
    return {"failures": failures}


def goes_on(group, log_dir):
    """The state is read while process 1 is behind, and the run resumes from there."""

    def log(logger, steps, life):
        for step in steps:
            logger.log({"rank": float(group.process_index), "life": life}, step)

    first = ld.Logger(ld.JSONLBackend(log_dir), "goes_on", scope="process")
    if group.is_writer:
        log(first, range(10), 1)
    group.barrier(timeout=60, what="the rows of process 0")
    if not group.is_writer:
        log(first, range(10), 1)
    state = first.state()
    log(first, range(10, 15), 1)
    before = first.failures
    first.close(failed=True)
    with ld.Logger(ld.JSONLBackend(log_dir), scope="process", state=state) as second:
        log(second, range(10, 20), 2)
    failures = [f"{f.where}: {f.message}" for f in (*before, *second.failures)]
    leaves = [leaf.tolist() for leaf in jax.tree.leaves(state)]
    return {"failures": failures, "state": leaves, "place": (second.name, second.incarnation)}


def main():
    name, log_dir, how, *rest = sys.argv[1:]
    group = ld.initialize() if how == "jax" else ld.MPIGroup()
    said = globals()[name](group, log_dir, *rest)
    report({"process": group.process_index, **said})


if __name__ == "__main__":
    main()
