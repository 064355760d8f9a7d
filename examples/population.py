"""A population with one log: each process trains members of its own, without communication.

Members are networks that learn the same curve with different learning rates. Each process compiles
and runs its own program on its own devices: no collectives, no global arrays, no waiting for other
processes. With `scope="process"` process 0 merges the rows of all processes: the mean, the lowest
and the highest loss over all members.

    mpirun -n 4 python examples/population.py
    srun --ntasks=4 python examples/population.py
    python examples/population.py                    # a population in one process
"""

import argparse
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Key

import lerax_dist as ld

STEPS_PER_ROW = 20
Params = dict[str, Array]


def init(key: Key[Array, ""]) -> Params:
    hidden, bias, last = jax.random.split(key, 3)
    return {
        "hidden": 4.0 * jax.random.normal(hidden, (1, 32)),
        "bias": jax.random.normal(bias, (32,)),
        "last": jax.random.normal(last, (32, 1)) / 32.0,
    }


def loss_fn(params: Params, xs: Float[Array, "batch 1"]) -> Float[Array, ""]:
    predicted = jnp.tanh(xs @ params["hidden"] + params["bias"]) @ params["last"]
    return jnp.square(predicted - jnp.sin(3.0 * xs)).mean()


def make_train(logger: ld.LoggingCallback, num_rows: int) -> Any:
    def update(learning_rate: Any, member: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        """One gradient step of one member."""
        params, counted = member
        xs = jax.random.uniform(key, (64, 1), minval=-1.0, maxval=1.0)
        loss, gradient = jax.value_and_grad(loss_fn)(params, xs)
        params = jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)
        # The step of a row counts these calls over all members of all processes.
        ctx = ld.StepContext(counted, None, None, done=jnp.asarray(False), reward=-loss)
        return (params, logger.on_step(ctx, key=key)), loss

    @jax.jit
    def train(learning_rates: Float[Array, " member"], key: Key[Array, ""]) -> Any:
        def advance(learning_rate: Any, member: Any, keys: Any) -> tuple[Any, Any]:
            member, losses = lax.scan(lambda m, k: update(learning_rate, m, k), member, keys)
            return member, losses.mean()

        def iterate(carry: Any, now: Any) -> tuple[Any, Any]:
            logged, members = carry
            iteration, key = now
            keys = jax.random.split(key, (len(learning_rates), STEPS_PER_ROW))
            members, losses = jax.vmap(advance)(learning_rates, members, keys)
            log = {
                "loss": ld.Mean.of(losses),
                "loss_best": ld.Min(losses.min()),
                "loss_worst": ld.Max(losses.max()),
            }
            ctx = ld.IterationContext(logged, members[1], None, None, iteration, None, log)
            return (logger.on_iteration(ctx, key=key), members), losses

        member_keys = jax.random.split(key, len(learning_rates))
        counted = jax.vmap(lambda k: logger.step_reset(ld.ResetContext(), key=k))(member_keys)
        members = (jax.vmap(init)(member_keys), counted)
        logged = logger.reset(ld.ResetContext(), key=key)
        rows = (jnp.arange(num_rows), jax.random.split(key, num_rows))
        _, losses = lax.scan(iterate, (logged, members), rows)
        return losses[-1]

    return train


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--members", type=int, default=4, help="members per process")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-dir", default="logs")
    args = parser.parse_args()
    group = ld.initialize()
    backends = [ld.TensorBoardBackend(args.log_dir), ld.ConsoleBackend()]
    with ld.LoggingCallback(backends, hparams=vars(args), scope="process") as logger:
        # A learning rate for each member of the whole population, evenly spaced in the logarithm.
        all_rates = jnp.geomspace(1e-3, 0.1, args.members * group.process_count)
        mine = all_rates.reshape(group.process_count, args.members)[group.process_index]
        key = jax.random.fold_in(jax.random.key(args.seed), group.process_index)
        losses = make_train(logger, args.rows)(mine, key)
        pairs = list(zip(losses.tolist(), mine.tolist(), strict=True))
        gathered = group.gather(pairs, timeout=300.0, what="the losses of all members")
    if gathered is not None:
        loss, rate = min(pair for pairs in gathered for pair in pairs)
        print(f"population: the best member has loss {loss:.4f}, with learning rate {rate:.4f}")
        print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
