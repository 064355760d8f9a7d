"""What examples take as given: a model, batches, and an algorithm that drives callbacks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import lerax_dist as ld

env, policy = type("CartPole", (), {})(), type("Policy", (), {})()
key = jax.random.key(0)
params = {"weight": jnp.zeros(3)}
batches = itertools.repeat(np.ones((8, 3), np.float32))


def loss_fn(params, example):
    return jnp.square(jnp.dot(params["weight"], example) - 1.0)


@jax.jit
def train_step(params, batch):
    def loss(params):
        return jax.vmap(loss_fn, (None, 0))(params, batch).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient), value


class Algorithm:
    """Learns nothing, but calls its callbacks as the algorithms of lerax do."""

    def learn(self, env, policy, total_timesteps, *, key, callback):
        (logger,) = callback
        num_envs, num_steps = 4, 16
        states = jax.vmap(lambda k: logger.step_reset(ld.ResetContext(), key=k))(
            jax.random.split(key, num_envs)
        )

        def training(ctx_state, states, count):
            return ld.TrainingContext(ctx_state, states, env, policy, total_timesteps, count, None)

        def act(states, place):
            def one(state):
                ctx = ld.StepContext(state, env, policy, place % 8 == 7, jnp.asarray(1.0))
                return logger.on_step(ctx, key=key)

            return jax.vmap(one)(states), None

        def iterate(carry, count):
            logged, states = carry
            states, _ = jax.lax.scan(act, states, jnp.arange(num_steps))
            log = {"loss": 1.0 / (count + 1)}
            ctx = ld.IterationContext(logged, states, env, policy, count, None, log)
            return (logger.on_iteration(ctx, key=key), states), None

        @jax.jit
        def run(states):
            logged = logger.reset(ld.ResetContext(), key=key)
            logged = logger.on_training_start(training(logged, states, jnp.asarray(0)), key=key)
            counts = jnp.arange(min(8, total_timesteps // (num_envs * num_steps)))
            (logged, states), _ = jax.lax.scan(iterate, (logged, states), counts)
            logger.on_training_end(training(logged, states, counts[-1]), key=key)
            return states

        jax.block_until_ready(run(states))
        return policy


algo = algorithm = Algorithm()
