"""Runs the known run by `shard_map`, `pmap` and plain `jit`, logs each, and reports what it is.

Arguments: log_dir, log_interval, `close` or `exit` (leave the program without closing), and how
many rows are sent together.
"""

import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.multiprocess import scenario
from tests.multiprocess.launch import report


def train(logger, data):
    """The whole training in one program; `data` is what this device sees of the environments."""
    rewards, dones, logs, rates = data
    key = jax.random.key(0)

    def step(states, seen):
        reward, done = seen

        def act(state, reward, done):
            return logger.on_step(ld.StepContext(state, None, None, done, reward), key=key)

        return jax.vmap(act)(states, reward, done), None

    def iteration(carry, seen):
        state, states, count = carry
        reward, done, log, rate = seen
        states, _ = jax.lax.scan(step, states, (reward, done))
        training_log = {name: log[i].mean() for i, name in enumerate(scenario.METRICS)}
        context = ld.IterationContext(
            state, states, None, None, count + 1, {"learning_rate": rate}, training_log
        )
        state = logger.on_iteration(context, key=key)
        return (state, states, count + 1), None

    reset = ld.ResetContext()
    fresh = jax.vmap(lambda _: logger.step_reset(reset, key=key))(rewards[0, 0])
    # Each device has environments of its own, which their zero states do not show yet.
    states = jax.tree.map(
        lambda zero: zero + jnp.zeros_like(rewards[0, 0]).astype(zero.dtype), fresh
    )
    state = logger.reset(reset, key=key)
    zero = jnp.zeros((), jnp.int32)
    start = ld.TrainingContext(state, states, None, None, rewards.size, zero, None)
    state = logger.on_training_start(start, key=key)
    (state, states, count), _ = jax.lax.scan(iteration, (state, states, zero), data)
    end = ld.TrainingContext(state, states, None, None, rewards.size, count, None)
    logger.on_training_end(end, key=key)
    return states.average_return


def run(mode, logger, data):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
    specs = (P(None, None, "devices"),) * 3 + (P(),)

    def whole(array, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    if mode == "pmap":
        here = jax.process_index() * jax.local_device_count()
        split = [np.stack(np.split(a, jax.device_count(), axis=2)) for a in data[:3]]
        mine = [a[here : here + jax.local_device_count()] for a in split]
        rates = np.broadcast_to(data[3], (jax.local_device_count(), *data[3].shape))
        return jax.pmap(lambda *d: train(logger, d), axis_name="i")(*mine, rates)
    sharded = tuple(whole(array, spec) for array, spec in zip(data, specs, strict=True))
    if mode == "jit":
        return jax.jit(lambda *d: train(logger, d))(*sharded)
    mapped = jax.shard_map(
        lambda *d: train(logger, d), mesh=mesh, in_specs=specs, out_specs=P("devices")
    )
    return jax.jit(mapped)(*sharded)


def main():
    log_dir, log_interval, ending = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    together = int(sys.argv[4])
    group = ld.initialize()
    data = (scenario.REWARDS, scenario.DONES, scenario.LOGS, scenario.LEARNING_RATES)
    said = {}
    for mode in ("shard_map", "pmap", "jit"):
        logger = ld.LoggingCallback(
            [ld.TensorBoardBackend(log_dir), ld.JSONLBackend(log_dir)],
            # Process 0's name counts, whatever the others were given.
            name=f"{mode}-{group.process_index}" if ending == "names" else mode,
            alpha=scenario.ALPHA,
            log_interval=log_interval,
            rows_per_transfer=together,
        )
        jax.block_until_ready(run(mode, logger, data))
        if ending != "exit":
            logger.close()
        said[mode] = {
            "name": logger.name,
            "run_dir": str(logger.run_dir),
            "backends": [type(backend).__name__ for backend in logger.backends],
            "failures": [f.message for f in logger.failures if f.where != "name"],
        }
    report(
        {
            "process": group.process_index,
            "count": group.process_count,
            "devices": jax.device_count(),
            "imported": [name for name in ("wandb", "tensorboardX", "rich") if name in sys.modules],
            "threads": [t.name for t in threading.enumerate() if t.name.startswith("lerax_dist")],
            "modes": said,
        }
    )


if __name__ == "__main__":
    main()
