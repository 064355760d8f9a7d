"""PPO on CartPole-v1, data-parallel over every device of every process, with one log.

The environments are split over the devices, each device computes a gradient from its own, and the
gradients are averaged, so the parameters are the same on every device. `LoggingCallback` averages
its metrics over the whole run as well, and only process 0 writes: no line of the training depends
on the process index.

    pip install ".[examples]"  # in a checkout

    python examples/ppo_cartpole.py                      # one process, all of its devices
    mpirun -n 2 python examples/ppo_cartpole.py          # MPI
    srun --ntasks=8 python examples/ppo_cartpole.py      # SLURM, in a batch script
    gcloud compute tpus tpu-vm ssh POD --worker=all \\
        --command="python examples/ppo_cartpole.py"      # TPU pod: the same command on every host
    python examples/ppo_cartpole.py --checkpoint-dir ck  # resumes when started again
    XLA_FLAGS=--xla_force_host_platform_device_count=4 python examples/ppo_cartpole.py  # simulated

On two CPU cores the mean `episode/return` exceeds 450 of 500 in under a minute.
"""

import argparse
import functools as ft
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import optax
from checkpoints import Checkpoints
from gymnax_render import make_render
from jax import lax
from jax import numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

import lerax_dist as ld

AXIS = "devices"
GAMMA, GAE_LAMBDA, CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT = 0.99, 0.95, 0.2, 0.25, 0.01


class ActorCritic(eqx.Module):
    """A policy network and a value network."""

    actor: list[eqx.nn.Linear]
    critic: list[eqx.nn.Linear]
    name: ClassVar[str] = "PPO"

    def __init__(self, num_obs: int, num_actions: int, key: Key[Array, ""]) -> None:
        def layers(num_out: int, keys: Key[Array, " 3"]) -> list[eqx.nn.Linear]:
            sizes = ((num_obs, 64), (64, 64), (64, num_out))
            return [eqx.nn.Linear(*size, key=k) for size, k in zip(sizes, keys, strict=True)]

        actor_keys, critic_keys = jax.random.split(key, (2, 3))
        self.actor, self.critic = layers(num_actions, actor_keys), layers(1, critic_keys)

    def logits(self, obs: Float[Array, " obs"]) -> Float[Array, " action"]:
        first, second, last = self.actor
        return last(jnp.tanh(second(jnp.tanh(first(obs)))))

    def value(self, obs: Float[Array, " obs"]) -> Float[Array, ""]:
        first, second, last = self.critic
        return last(jnp.tanh(second(jnp.tanh(first(obs)))))[0]


class Actor(NamedTuple):
    """One environment with its state; with a leading axis, all those of a device."""

    obs: Float[Array, "*env obs"]
    env_state: Any
    step_state: ld.LoggingCallbackStepState
    key: Key[Array, "*env"]


class Step(NamedTuple):
    """One transition; a rollout has axes (time, env), a batch has one axis."""

    obs: Float[Array, "*step obs"]
    next_obs: Float[Array, "*step obs"]  # after the action, before a reset
    action: Int[Array, "*step"]
    log_prob: Float[Array, "*step"]
    reward: Float[Array, "*step"]
    terminated: Bool[Array, "*step"]  # the pole fell
    done: Bool[Array, "*step"]  # the pole fell, or the time limit was reached


class Batch(NamedTuple):
    """Transitions with the targets of the loss."""

    step: Step
    advantage: Float[Array, "*step"]
    target: Float[Array, "*step"]  # of the value network


def reset(env: Any, logger: ld.LoggingCallback, key: Key[Array, ""]) -> Actor:
    key, env_key, log_key = jax.random.split(key, 3)
    obs, env_state = env.reset(env_key)
    return Actor(obs, env_state, logger.step_reset(ld.ResetContext(), key=log_key), key)


def act(
    env: Any, logger: ld.LoggingCallback, policy: ActorCritic, actor: Actor
) -> tuple[Actor, Step]:
    key, action_key, env_key, log_key = jax.random.split(actor.key, 4)
    logits = policy.logits(actor.obs)
    action = jax.random.categorical(action_key, logits)
    log_prob = jax.nn.log_softmax(logits)[action]
    obs, env_state, reward, terminated, truncated, info = env.step(env_key, actor.env_state, action)
    done = terminated | truncated
    ctx = ld.StepContext(actor.step_state, env, policy, done, reward)
    step_state = logger.on_step(ctx, key=log_key)
    step = Step(actor.obs, info["final_observation"], action, log_prob, reward, terminated, done)
    return Actor(obs, env_state, step_state, key), step


def estimate(policy: ActorCritic, rollout: Step) -> Batch:
    """Advantages (GAE, normalized over all devices) and targets; (time, env) become one axis."""
    value = jax.vmap(jax.vmap(policy.value))
    values = value(rollout.obs)
    # At the time limit the return is bootstrapped; only a fallen pole ends it.
    next_values = value(rollout.next_obs) * ~rollout.terminated
    errors = rollout.reward + GAMMA * next_values - values
    decays = GAMMA * GAE_LAMBDA * ~rollout.done

    def back(later: Float[Array, " env"], now: tuple[Array, Array]) -> tuple[Array, Array]:
        advantage = now[0] + now[1] * later
        return advantage, advantage

    _, advantages = lax.scan(back, jnp.zeros_like(values[0]), (errors, decays), reverse=True)
    mean, square = lax.pmean(jnp.stack([advantages.mean(), jnp.square(advantages).mean()]), AXIS)
    normal = (advantages - mean) / jnp.sqrt(square - mean**2 + 1e-8)
    batch = Batch(rollout, normal, advantages + values)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def loss(policy: ActorCritic, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
    """PPO's clipped loss of a minibatch, and the scalars to log."""
    log_probs = jax.nn.log_softmax(jax.vmap(policy.logits)(batch.step.obs))  # (step, action)
    log_prob = jnp.take_along_axis(log_probs, batch.step.action[:, None], axis=1)[:, 0]
    ratio = jnp.exp(log_prob - batch.step.log_prob)
    clipped = jnp.clip(ratio, 1.0 - CLIP, 1.0 + CLIP)
    policy_loss = -jnp.minimum(ratio * batch.advantage, clipped * batch.advantage).mean()
    value_loss = jnp.square(jax.vmap(policy.value)(batch.step.obs) - batch.target).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=1).mean()
    total = policy_loss + VALUE_WEIGHT * value_loss - ENTROPY_WEIGHT * entropy
    log = {"loss": total, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return total, log | {"approx_kl": (ratio - 1.0 - jnp.log(ratio)).mean()}


def mean_gradient(policy: ActorCritic, batch: Batch) -> tuple[Any, dict[str, Array]]:
    """The gradient averaged over all devices, as one vector, so that it takes one collective."""
    flat, unravel = ravel_pytree(policy)
    # Marked as varying: for replicated parameters JAX would insert a sum of the gradient itself.
    flat = lax.pcast(flat, AXIS, to="varying")
    gradient, log = jax.grad(lambda x: loss(unravel(x), batch), has_aux=True)(flat)
    return unravel(lax.pmean(gradient, AXIS)), log


class Training(NamedTuple):
    """The state of the training, which is what a checkpoint holds."""

    iteration: Any  # number of iterations done
    actors: Any
    policy: Any
    opt_state: Any
    key: Any


def make_train(env: Any, logger: ld.LoggingCallback, args: argparse.Namespace) -> Any:
    """Three compiled functions: `init` (new state), `start` (once per launch), `advance`."""
    mesh = jax.sharding.Mesh(jax.devices(), (AXIS,))  # every device of every process
    # Actors are split over the devices; everything else is replicated.
    specs = Training(P(), P(AXIS), P(), P(), P())
    num_updates = args.num_iterations * args.num_epochs * args.num_minibatches
    learning_rate = optax.linear_schedule(args.learning_rate, 0.0, num_updates)
    # This puts the learning rate into the optimizer state, where the logger finds it.
    adam = optax.inject_hyperparams(optax.adam)(learning_rate, eps=1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), adam)

    @ft.partial(jax.jit, out_shardings=jax.tree.map(ft.partial(NamedSharding, mesh), specs))
    def init(seed: Int[Array, ""]) -> Training:
        key, policy_key, env_key = jax.random.split(jax.random.key(seed), 3)
        policy: Any = ActorCritic(4, env.num_actions, policy_key)
        env_keys = jax.random.split(env_key, args.num_envs)
        actors = jax.vmap(ft.partial(reset, env, logger))(env_keys)
        return Training(jnp.asarray(0), actors, policy, optimizer.init(policy), key)

    def update(batch: Batch, learned: Any, order: Int[Array, " step"]) -> tuple[tuple, dict]:
        policy, opt_state = learned
        gradient, log = mean_gradient(policy, jax.tree.map(lambda x: x[order], batch))
        updates, opt_state = optimizer.update(gradient, opt_state, policy)
        return (optax.apply_updates(policy, updates), opt_state), log

    def iterate(keys: Key[Array, " iteration"], iteration: Array, carry: Any) -> Any:
        """One iteration: act, learn, log."""
        state, now = carry
        key, policy, opt_state = keys[iteration], now.policy, now.opt_state
        act_all = jax.vmap(lambda actor: act(env, logger, policy, actor))
        actors, rollout = lax.scan(lambda x, _: act_all(x), now.actors, length=args.num_steps)
        batch = estimate(policy, rollout)
        keys = jax.random.split(jax.random.fold_in(key, lax.axis_index(AXIS)), args.num_epochs)
        orders = jax.vmap(lambda key: jax.random.permutation(key, len(batch.target)))(keys)
        orders = orders.reshape(args.num_epochs * args.num_minibatches, -1)
        (policy, opt_state), log = lax.scan(ft.partial(update, batch), (policy, opt_state), orders)
        done = (actors.step_state, env, policy, iteration, opt_state, jax.tree.map(jnp.mean, log))
        state = logger.on_iteration(ld.IterationContext(state, *done), key=key)
        return state, Training(iteration + 1, actors, policy, opt_state, now.key)

    def context(state: Any, now: Training) -> ld.TrainingContext:
        known = (now.actors.step_state, env, now.policy, args.total_steps)
        return ld.TrainingContext(state, *known, now.iteration, now.opt_state)

    @jax.jit
    def start(now: Training) -> None:
        fresh = logger.reset(ld.ResetContext(), key=now.key)
        logger.on_training_start(context(fresh, now), key=now.key)

    @jax.jit
    @ft.partial(jax.shard_map, mesh=mesh, in_specs=(specs, P()), out_specs=specs)
    def advance(now: Training, until: Int[Array, ""]) -> Training:
        """Run on each device with its actors, up to iteration `until`."""
        keys = jax.random.split(now.key, args.num_iterations)
        carry = (logger.reset(ld.ResetContext(), key=now.key), now)
        state, now = lax.fori_loop(now.iteration, until, ft.partial(iterate, keys), carry)
        logger.on_training_end(context(state, now), key=now.key)
        return now

    return init, start, advance


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--total-steps", type=int, default=2**19, help="environment steps of the whole run")
    add("--num-envs", type=int, default=32, help="environments of the whole run")
    # As long as an episode. All environments reach the time limit together, so a shorter rollout
    # would cover one part of the episode only, and the network would forget the others.
    add("--num-steps", type=int, default=512, help="steps of each environment per iteration")
    add("--num-epochs", type=int, default=4, help="passes over the data of an iteration")
    add("--num-minibatches", type=int, default=8, help="gradient steps per pass")
    add("--learning-rate", type=float, default=3e-3, help="initial value; decays linearly to 0")
    add("--seed", type=int, default=0)
    add("--name", help="name of the run; by default made from policy, environment and time")
    add("--log-dir", default="logs")
    add("--no-console", action="store_true", help="no table of metrics in the terminal")
    add("--wandb", metavar="PROJECT", help="also log to this Weights & Biases project")
    add("--checkpoint-dir", help="save and resume here; a folder that all hosts share")
    add("--checkpoint-every", type=int, default=4, help="iterations between checkpoints")
    add("--video-interval", type=int, default=0, help="iterations between videos; 0 for none")
    args = parser.parse_args()
    args.num_iterations = max(1, args.total_steps // (args.num_envs * args.num_steps))
    args.total_steps = args.num_iterations * args.num_envs * args.num_steps
    if args.checkpoint_dir is None:
        args.checkpoint_every = args.num_iterations
    return args


def main() -> None:
    args = parse_args()
    group = ld.initialize()
    # Imported after `initialize`: gymnax runs JAX on import, and a process must join before that.
    import gymnax

    if args.num_envs % jax.device_count():
        devices = jax.device_count()
        raise SystemExit(f"--num-envs {args.num_envs} must be a multiple of {devices} devices")
    env, _ = gymnax.make("CartPole-v1")
    backends: list[ld.AbstractLoggingBackend] = [ld.TensorBoardBackend(args.log_dir)]
    backends += [] if args.no_console else [ld.ConsoleBackend()]
    backends += [ld.WandbBackend(project=args.wandb)] if args.wandb else []

    numbers = {name: value for name, value in vars(args).items() if type(value) in (int, float)}
    checkpoints = Checkpoints(args.checkpoint_dir)
    with ld.LoggingCallback(
        *(backends, args.name, env, ActorCritic),
        hparams=numbers | {"num_devices": jax.device_count()},
        video_interval=args.video_interval,
        act=lambda policy, obs, key: jnp.argmax(policy.logits(obs)),
        render=make_render(env),
        log_dir=args.log_dir,
        state=checkpoints.restore("run", like=ld.RunState.empty()),
        # SIGTERM and SIGUSR1 then set `preempted` below instead of ending the program.
        handle_signals=args.checkpoint_dir is not None,
    ) as logger:
        init, start, advance = make_train(env, logger, args)
        now = checkpoints.restore("training", like=init(args.seed))
        start(now)
        done = int(now.iteration)
        # `preempted` is the same on every process, so all end the loop together.
        while done < args.num_iterations and not logger.preempted:
            done = min(done + args.checkpoint_every, args.num_iterations)
            now = advance(now, done)
            checkpoints.save(done, training=now, run=logger.state())
        mean_return = float(jnp.mean(now.actors.step_state.average_return))
    checkpoints.close()
    if group.is_writer:
        if done < args.num_iterations:
            print(f"Preempted after {done} of {args.num_iterations} iterations.")
        solved = "solved" if mean_return > 450.0 else "not solved"
        print(f"CartPole-v1 {solved}: mean return {mean_return:.1f} of 500")
        print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
