"""Trains lerax's PPO with its environments sharded over N devices, logged by lerax_dist.

Arguments: number of devices, log_dir, and `both` to log by lerax's own callback beside it.
"""

import sys
from importlib.metadata import version

import equinox as eqx
import jax
import numpy as np
from jax import random as jr
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from lerax.algorithm import PPO
from lerax.callback import TensorBoardCallback
from lerax.env.classic_control import CartPole
from lerax.policy import MLPActorCriticPolicy

import lerax_dist as ld
from tests.multiprocess.launch import report

ENVIRONMENTS, STEPS, ITERATIONS, VIDEO_INTERVAL = 8, 64, 10, 5

devices, log_dir = int(sys.argv[1]), sys.argv[2]
mesh = jax.sharding.Mesh(
    np.array(jax.devices()[:devices]), ("environments",), axis_types=(AxisType.Auto,)
)


class ShardedPPO(PPO):
    """PPO whose environments lie on all devices of the mesh."""

    def reset(self, *args, **kwargs):
        state = super().reset(*args, **kwargs)
        sharding = NamedSharding(mesh, P("environments"))
        split = jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(x, sharding) if eqx.is_array(x) else x,
            state.step_state,
        )
        return eqx.tree_at(lambda s: s.step_state, state, split)


env = CartPole()
policy_key, learn_key = jr.split(jr.key(0))
policy = MLPActorCriticPolicy(env=env, key=policy_key)
algorithm = ShardedPPO(num_envs=ENVIRONMENTS, num_steps=STEPS, num_batches=4, num_epochs=2)
logger = ld.LoggingCallback(
    [ld.TensorBoardBackend(log_dir), ld.JSONLBackend(log_dir)],
    env=env,
    policy=policy,
    video_interval=VIDEO_INTERVAL,
    video_num_steps=32,
)
callbacks: list = [logger]
if "both" in sys.argv:
    callbacks.append(TensorBoardCallback(name="lerax", log_dir=log_dir))
algorithm.learn(env, policy, ENVIRONMENTS * STEPS * ITERATIONS, key=learn_key, callback=callbacks)
logger.close()
report(
    {
        "process": 0,
        "run_dir": str(logger.run_dir),
        "modules": [name for name in ("pygame",) if name in sys.modules],
        "failures": [failure.message for failure in logger.failures],
        "versions": [version("lerax"), version("jax")],
    }
)
