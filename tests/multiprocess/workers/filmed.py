"""A training that records videos, in every way to run. Arguments: log_dir, scope."""

import sys
import threading

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.multiprocess.launch import report
from tests.video.walk import Walk, act

ITERATIONS, STEPS, WIDTH, HEIGHT, INTERVAL, ENVIRONMENTS = 5, 12, 24, 10, 2, 8
MODES = ("shard_map", "pmap", "jit")


def train(logger, env, x):
    """Iteration `i` has the policy "walk 2 `i` a step"."""
    reset, key = ld.ResetContext(), jax.random.key(0)

    def iterate(states, count):
        def act_once(state, reward):
            ctx = ld.StepContext(state, env, None, reward < 0, reward)
            return logger.on_step(ctx, key=key)

        states = jax.vmap(act_once)(states, x)
        policy = jnp.float32(2) * count.astype(jnp.float32)
        ctx = ld.IterationContext(
            ld.EmptyCallbackState(), states, env, policy, count, None, {"loss": x.mean()}
        )
        logger.on_iteration(ctx, key=jax.random.fold_in(key, count))
        return states, None

    fresh = jax.vmap(lambda _: logger.step_reset(reset, key=key))(x)
    fresh = jax.tree.map(lambda zero: zero + jnp.zeros_like(x).astype(zero.dtype), fresh)
    counts = jnp.arange(1, ITERATIONS + 1, dtype=jnp.int32)
    return jax.lax.scan(iterate, fresh, counts)[0].average_return


def run(mode, logger, env, devices):
    """The training on these devices; of a program that is this process's own, on all its data."""
    mesh = jax.sharding.Mesh(np.array(devices), ("d",), axis_types=(AxisType.Auto,))
    if mode == "pmap":
        shape = (jax.local_device_count(), ENVIRONMENTS // len(devices))
        mapped = jax.pmap(lambda x: train(logger, env, x), axis_name="i", devices=devices)
        return mapped(np.zeros(shape, np.float32))
    zeros = np.zeros(ENVIRONMENTS, np.float32)
    sharding = NamedSharding(mesh, P("d"))
    x = jax.make_array_from_callback(zeros.shape, sharding, lambda index: zeros[index])
    if mode == "jit":
        return jax.jit(lambda x: train(logger, env, x))(x)
    mapped = jax.shard_map(
        lambda x: train(logger, env, x), mesh=mesh, in_specs=P("d"), out_specs=P("d")
    )
    return jax.jit(mapped)(x)


def main():
    log_dir, scope = sys.argv[1:]
    group = ld.initialize()
    devices = jax.devices() if scope == "global" else jax.local_devices()
    said = {}
    for mode in MODES:
        played = []
        env = Walk(lambda played=played: played.append(1))
        with ld.LoggingCallback(
            ld.TensorBoardBackend(log_dir),
            mode,
            env,
            video_interval=INTERVAL,
            video_num_steps=STEPS,
            video_width=WIDTH,
            video_height=HEIGHT,
            act=act,
            scope=scope,
        ) as logger:
            jax.block_until_ready(run(mode, logger, env, devices))
        said[mode] = {"played": len(played), "failures": [f.message for f in logger.failures]}
    report(
        {
            "process": group.process_index,
            "modes": said,
            "imported": [name for name in ("PIL", "tensorboardX") if name in sys.modules],
            "threads": [t.name for t in threading.enumerate() if t.name.startswith("lerax_dist")],
        }
    )


if __name__ == "__main__":
    main()
