"""lerax's PPO on CartPole, logged by lerax_dist, with its environments on every local device.

lerax calls the logger by itself: pass it in the list `callback`. lerax's own logger works on one
device only; this one works on any number, with the same rows. lerax needs Python 3.13.

    pip install lerax .  # in a checkout

    python examples/lerax_ppo.py
    python examples/lerax_ppo.py --video-interval 16    # shown in TensorBoard under "Images"
    XLA_FLAGS=--xla_force_host_platform_device_count=4 python examples/lerax_ppo.py    # simulated
"""

import argparse
import functools as ft
from typing import Any

import equinox as eqx
import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from lerax.algorithm import PPO
from lerax.callback import TensorBoardCallback
from lerax.env.classic_control import CartPole
from lerax.policy import MLPActorCriticPolicy

import lerax_dist as ld


class ShardedPPO(PPO):
    """PPO with its environments sharded over all devices; XLA shards the computation with them."""

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        state = super().reset(*args, **kwargs)
        mesh = jax.make_mesh((jax.device_count(),), ("env",), axis_types=(AxisType.Auto,))
        split = ft.partial(
            jax.lax.with_sharding_constraint, shardings=NamedSharding(mesh, P("env"))
        )
        arrays, rest = eqx.partition(state.step_state, eqx.is_array)
        step_state = eqx.combine(jax.tree.map(split, arrays), rest)
        return eqx.tree_at(lambda state: state.step_state, state, step_state)


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--total-steps", type=int, default=2**17, help="environment steps")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=256, help="steps per environment and row")
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--video-interval", type=int, default=0, help="rows per video; 0 for none")
    parser.add_argument("--video-steps", type=int, default=500, help="environment steps per video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-dir", default="logs")
    parser.add_argument(
        "--beside", action="store_true", help="also log with lerax's own logger (one device only)"
    )
    args = parser.parse_args()

    env = CartPole()
    policy_key, learn_key = jax.random.split(jax.random.key(args.seed))
    policy = MLPActorCriticPolicy(env=env, key=policy_key)
    algorithm = ShardedPPO(
        num_envs=args.num_envs, num_steps=args.num_steps, num_batches=4, num_epochs=args.num_epochs
    )
    backends = [ld.TensorBoardBackend(args.log_dir), ld.ConsoleBackend()]
    own_callbacks = [TensorBoardCallback(name="lerax", log_dir=args.log_dir)] if args.beside else []
    with ld.LoggingCallback(
        backends,
        env=env,
        policy=policy,
        video_interval=args.video_interval,
        video_num_steps=args.video_steps,
    ) as logger:
        callback = [logger, *own_callbacks]
        algorithm.learn(env, policy, args.total_steps, key=learn_key, callback=callback)
    print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
