"""PPO in the style of purejaxrl, several seeds in one program, logged from within as one run.

The whole training is one function, and `jit(vmap(train))` runs it for every seed. A line with
`logger.emit` is all that logging adds: a row is the mean over the seeds, with the lowest and the
highest beside it, and its step is that of one seed. TensorBoard and the console show a band.

Seeds are split over the devices of all processes, by the sharding of their keys. The training does
not know.

    pip install ".[examples]"  # in a checkout

    python examples/purejaxrl_ppo.py
    XLA_FLAGS=--xla_force_host_platform_device_count=4 python examples/purejaxrl_ppo.py  # simulated
    mpirun -n 2 python examples/purejaxrl_ppo.py
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import optax
from flax.training.train_state import TrainState
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key

import lerax_dist as ld

GAMMA, GAE_LAMBDA, CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT = 0.99, 0.95, 0.2, 0.5, 0.01


class ActorCritic(nn.Module):
    """Scores of the actions, and the value."""

    num_actions: int

    @nn.compact
    def __call__(self, obs: Float[Array, "*batch obs"]) -> tuple[Array, Array]:
        # Orthogonal weights are usual. But as of jax 0.12.0 a batch of QR decompositions may stand
        # still for ever on simulated devices, with a logger or without.
        def network(size: int) -> Array:
            x = obs
            for _ in range(2):
                x = nn.tanh(nn.Dense(64)(x))
            return nn.Dense(size, kernel_init=nn.initializers.normal(0.01))(x)

        return network(self.num_actions), network(1)[..., 0]


class Transition(NamedTuple):
    """What a step of all environments leaves for learning."""

    obs: Float[Array, "*step env obs"]
    action: Int[Array, "*step env"]
    log_prob: Float[Array, "*step env"]
    value: Float[Array, "*step env"]
    reward: Float[Array, "*step env"]
    done: Array
    info: dict[str, Array]


def make_train(
    logger: ld.Logger | ld.LoggingCallback, args: argparse.Namespace
) -> Callable[[Key[Array, ""]], dict[str, Any]]:
    """The training of one seed; it returns its network and what each update has seen."""
    # Imported after `initialize`: gymnax runs JAX on import, and a process must join before that.
    import gymnax
    from gymnax.wrappers.purerl import LogWrapper

    basic_env, env_params = gymnax.make("CartPole-v1")
    env: Any = LogWrapper(basic_env)
    network = ActorCritic(env.num_actions)
    apply = cast(Callable[..., tuple[Array, Array]], network.apply)
    num_gradients = args.num_updates * args.num_epochs * args.num_minibatches
    schedule = optax.linear_schedule(args.learning_rate, 0.0, num_gradients)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(schedule, eps=1e-5))

    def env_step(runner_state: Any, _: None) -> tuple[Any, Transition]:
        train_state, env_state, obs, key = runner_state
        key, action_key, step_key = jax.random.split(key, 3)
        logits, value = apply(train_state.params, obs)
        action = jax.random.categorical(action_key, logits)
        log_prob = log_prob_of(logits, action)
        step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
        keys = jax.random.split(step_key, args.num_envs)
        next_obs, env_state, reward, ended, cut, info = step(keys, env_state, action, env_params)
        done = ended | cut
        transition = Transition(obs, action, log_prob, value, reward, done, info)
        return (train_state, env_state, next_obs, key), transition

    def advantages_of(rollout: Transition, last_value: Array) -> Array:
        def back(later: Any, now: Transition) -> tuple[Any, Array]:
            advantage, next_value = later
            error = now.reward + GAMMA * next_value * ~now.done - now.value
            advantage = error + GAMMA * GAE_LAMBDA * ~now.done * advantage
            return (advantage, now.value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        return lax.scan(back, start, rollout, reverse=True)[1]

    def loss_of(params: Any, batch: Any) -> tuple[Array, dict[str, Array]]:
        rollout, advantage, target = batch
        logits, value = apply(params, rollout.obs)
        ratio = jnp.exp(log_prob_of(logits, rollout.action) - rollout.log_prob)
        normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1.0 - CLIP, 1.0 + CLIP)
        policy_loss = -jnp.minimum(ratio * normal, clipped * normal).mean()
        near = rollout.value + jnp.clip(value - rollout.value, -CLIP, CLIP)
        errors = jnp.maximum(jnp.square(value - target), jnp.square(near - target))
        value_loss = 0.5 * errors.mean()
        entropy = -(nn.softmax(logits) * nn.log_softmax(logits)).sum(axis=-1).mean()
        loss = policy_loss + VALUE_WEIGHT * value_loss - ENTROPY_WEIGHT * entropy
        parts = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return loss, {"loss": loss, **parts}

    def update_minibatch(train_state: Any, batch: Any) -> tuple[Any, dict[str, Array]]:
        gradient, log = jax.grad(loss_of, has_aux=True)(train_state.params, batch)
        return train_state.apply_gradients(grads=gradient), log

    def update_step(runner_state: Any, update: Int[Array, ""]) -> tuple[Any, dict[str, Any]]:
        runner_state, rollout = lax.scan(env_step, runner_state, None, args.num_steps)
        train_state, env_state, obs, key = runner_state
        advantages = advantages_of(rollout, apply(train_state.params, obs)[1])
        size = args.num_steps * args.num_envs
        batch = (rollout._replace(info={}), advantages, advantages + rollout.value)
        batch = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), batch)

        def update_epoch(train_state: Any, key: Any) -> tuple[Any, dict[str, Array]]:
            order = jax.random.permutation(key, size).reshape(args.num_minibatches, -1)
            return lax.scan(
                lambda state, chosen: update_minibatch(
                    state, jax.tree.map(lambda x: x[chosen], batch)
                ),
                train_state,
                order,
            )

        key, epoch_key = jax.random.split(key)
        keys = jax.random.split(epoch_key, args.num_epochs)
        train_state, log = lax.scan(update_epoch, train_state, keys)
        log = jax.tree.map(jnp.mean, log)
        info, ended = rollout.info, rollout.info["returned_episode"]
        # The wrapper has returns in each step; those of an episode count where it has ended.
        episode = {
            "return": ld.Mean.of(info["returned_episode_returns"], where=ended),
            "length": ld.Mean.of(info["returned_episode_lengths"], where=ended),
            "count": ld.Sum(ended.sum()),
        }
        logger.emit({"train": log, "episode": episode}, (update + 1, size))
        return (train_state, env_state, obs, key), {"log": log, "info": info}

    def train(key: Key[Array, ""]) -> dict[str, Any]:
        key, network_key, reset_key = jax.random.split(key, 3)
        keys = jax.random.split(reset_key, args.num_envs)
        obs, env_state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
        params = network.init(network_key, obs)
        train_state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
        runner_state = (train_state, env_state, obs, key)
        runner_state, metrics = lax.scan(update_step, runner_state, jnp.arange(args.num_updates))
        return {"params": runner_state[0].params, "metrics": metrics}

    return train


def log_prob_of(logits: Float[Array, "*batch action"], action: Int[Array, "*batch"]) -> Array:
    return jnp.take_along_axis(nn.log_softmax(logits), action[..., None], axis=-1)[..., 0]


def parse_args(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--num-seeds", type=int, default=8)
    parser.add_argument("--total-steps", type=int, default=2**17, help="steps of each seed")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=128)
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--num-minibatches", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3, help="decays to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-dir", default="logs")
    args = parser.parse_args(given)
    args.num_updates = args.total_steps // (args.num_envs * args.num_steps)
    args.total_steps = args.num_updates * args.num_envs * args.num_steps
    return args


def main() -> None:
    args = parse_args()
    group = ld.initialize()
    if args.num_seeds % jax.device_count():
        devices = jax.device_count()
        raise SystemExit(f"--num-seeds {args.num_seeds} must be a multiple of {devices} devices")
    over_devices = NamedSharding(Mesh(jax.devices(), ("seeds",)), P("seeds"))
    split = jax.jit(jax.random.split, static_argnums=1, out_shardings=over_devices)
    backends = [ld.TensorBoardBackend(args.log_dir), ld.ConsoleBackend()]
    with ld.Logger(backends, total_steps=args.total_steps, hparams=vars(args)) as logger:
        train = jax.jit(jax.vmap(make_train(logger, args)))
        jax.block_until_ready(train(split(jax.random.key(args.seed), args.num_seeds)))
    if group.is_writer:
        run = ld.read_run(logger.run_dir)
        mean, low, high = (
            run[f"episode/return{suffix}"].values[-1]
            for suffix in ("", "/member_min", "/member_max")
        )
        print(f"CartPole-v1: return {mean:.1f} of 500 over {args.num_seeds} seeds", end="")
        print(f", the worst {low:.1f}, the best {high:.1f}")
        print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
