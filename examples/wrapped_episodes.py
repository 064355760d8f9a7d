"""Logs the episode statistics of a wrapper, as programs in the style of purejaxrl have them.

Their `LogWrapper` puts `returned_episode_returns` and `returned_episode` into `info`, of shape
`(steps, envs)`, or `(steps, envs, agents)` with several agents. The returns count where an episode
has ended: `Mean.of(returns, where=ended)` over all devices, and nothing where none has. No step
state, no callback protocol: one `emit` an update.

The environment is a walk of two agents to a goal; a table of preferences is learned by policy
gradient. Environments are split over all devices.

    python examples/wrapped_episodes.py
    mpirun -n 2 python examples/wrapped_episodes.py
"""

import argparse
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

import lerax_dist as ld

AGENTS, GOAL, LIMIT = 2, 3, 20


class State(NamedTuple):
    """Of one environment: the positions of the agents, and the counters of its wrapper."""

    position: Int[Array, " agent"]
    time: Int[Array, ""]
    episode_returns: Float[Array, " agent"]
    episode_length: Int[Array, ""]
    returned_episode_returns: Float[Array, " agent"]
    returned_episode_length: Int[Array, ""]


def reset() -> State:
    zero, nothing = jnp.zeros((), jnp.int32), jnp.zeros(AGENTS)
    return State(jnp.zeros(AGENTS, jnp.int32), zero, nothing, zero, nothing, zero)


def step(state: State, action: Int[Array, " agent"]) -> tuple[State, Array, dict[str, Array]]:
    """One step; an episode ends when all agents are at the goal, and the next begins."""
    position = jnp.clip(state.position + 2 * action - 1, -GOAL, GOAL)
    reward = jnp.where(position == GOAL, 0.0, -1.0)
    time = state.time + 1
    done = (position == GOAL).all() | (time >= LIMIT)
    # What purejaxrl's `LogWrapper` does.
    returns, length = state.episode_returns + reward, state.episode_length + 1
    state = State(
        position * ~done,
        time * ~done,
        returns * ~done,
        length * ~done,
        jnp.where(done, returns, state.returned_episode_returns),
        jnp.where(done, length, state.returned_episode_length),
    )
    info = {
        "returned_episode_returns": state.returned_episode_returns,
        "returned_episode_lengths": state.returned_episode_length,
        "returned_episode": done,
    }
    return state, reward, info


def make_train(logger: ld.Logger, args: argparse.Namespace, envs: int, run_envs: int) -> Any:
    def train(key: Key[Array, ""]) -> Float[Array, "position action"]:
        def act(carry: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
            table, states = carry
            seen = states.position + GOAL
            action = jax.random.categorical(key, table[seen])
            states, reward, info = jax.vmap(step)(states, action)
            return (table, states), (seen, action, reward, info)

        def update(carry: Any, now: Any) -> tuple[Any, None]:
            (table, states), (count, key) = carry, now
            key = jax.random.fold_in(key, lax.axis_index("envs"))
            keys = jax.random.split(key, args.num_steps)
            (_, states), (seen, action, reward, info) = lax.scan(act, (table, states), keys)
            togo = lax.cumsum(reward, axis=0, reverse=True)
            advantage = togo - togo.mean(axis=1, keepdims=True)

            def loss_of(table: Array) -> Array:
                chosen = jax.nn.log_softmax(table)[seen, action]
                return -(chosen * advantage).mean()

            loss, gradient = jax.value_and_grad(loss_of)(lax.pcast(table, "envs", to="varying"))
            ended = info["returned_episode"]  # (steps, envs)
            returns = info["returned_episode_returns"]  # (steps, envs, agents)
            row = {
                "train": {"loss": loss},
                "episode": {
                    "return": ld.Mean.of(returns, where=ended[..., None] & jnp.ones(AGENTS, bool)),
                    "length": ld.Mean.of(info["returned_episode_lengths"], where=ended),
                    "count": ld.Sum(ended.sum()),
                },
            }
            # Steps of the whole run, which may be more than an int32 holds.
            logger.emit(row, (count, args.num_steps * run_envs))
            table = table - args.learning_rate * lax.pmean(gradient, "envs")
            return (table, states), None

        states = jax.vmap(lambda _: reset())(jnp.arange(envs) + lax.axis_index("envs"))
        states = jax.tree.map(lambda x: lax.pcast(x, "envs", to="varying"), states)
        rows = (1 + jnp.arange(args.updates), jax.random.split(key, args.updates))
        (table, _), _ = lax.scan(update, (jnp.zeros((2 * GOAL + 1, 2)), states), rows)
        return table

    return train


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=32, help="environments of the whole run")
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--log-dir", default="logs")
    args = parser.parse_args()
    group = ld.initialize()
    mesh = jax.sharding.Mesh(jax.devices(), ("envs",))
    backends = [ld.TensorBoardBackend(args.log_dir), ld.ConsoleBackend()]
    total = args.updates * args.num_steps * args.num_envs
    with ld.Logger(backends, total_steps=total, hparams=vars(args)) as logger:
        train = make_train(logger, args, args.num_envs // mesh.size, args.num_envs)
        mapped = jax.shard_map(train, mesh=mesh, in_specs=P(), out_specs=P())
        jax.block_until_ready(jax.jit(mapped)(jax.random.key(0)))
    if group.is_writer:
        returns = ld.read_run(logger.run_dir)["episode/return"].values
        print(f"walk: mean return {returns[0]:.1f} at first, {returns[-1]:.1f} at last")
        print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
