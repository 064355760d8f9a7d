"""Runs whole trainings as users lay them out, and saves what they return for NumPy.

Arguments: log_dir, and names in `PROGRAMS`; each has a folder of its own.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.multiprocess.launch import ROOT, report

# Most of the time is compiling.
_QUICK = " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
SEEDS = 8
# Of examples/purejaxrl_ppo.py.
ENVIRONMENTS, ROLLOUT, ROWS = 4, 16, 6
# Of an Anakin layout: batch elements of each device, environments of each.
BATCH, ENVS, STEPS, UPDATES = 2, 3, 8, 4
# Of supervised programs: one line through noise; every so many updates an evaluation.
EXAMPLES, FEATURES, EPOCHS, EVALUATED = 32, 4, 6, 3
Train = Callable[[Any], Any]
Map = Callable[[Train, Any], Any]


# --- seeds of examples/purejaxrl_ppo.py


def seeds_by_jit(train: Train, keys: Any) -> Any:
    """All of them in one program, which XLA splits over the devices."""
    over_devices = NamedSharding(Mesh(jax.devices(), ("device",)), P("device"))
    return jax.jit(jax.vmap(train))(jax.device_put(keys, over_devices))


def seeds_by_pmap(train: Train, keys: Any) -> Any:
    split = keys.reshape(jax.device_count(), -1)
    returned = jax.pmap(jax.vmap(train), axis_name="device")(split)
    return jax.tree.map(lambda x: x.reshape(len(keys), *x.shape[2:]), returned)


def seeds_by_shard_map(train: Train, keys: Any) -> Any:
    mesh = Mesh(jax.devices(), ("device",))
    specs = {"mesh": mesh, "in_specs": P("device"), "out_specs": P("device"), "check_vma": False}
    return jax.jit(jax.shard_map(jax.vmap(train), **specs))(keys)


def purejaxrl(log_dir: Path, map_seeds: Map, member_axes: str | None = None) -> Any:
    sizes = {"num-envs": ENVIRONMENTS, "num-steps": ROLLOUT, "num-epochs": 2, "num-minibatches": 2}
    sizes["total-steps"] = ENVIRONMENTS * ROLLOUT * ROWS
    path = ROOT / "examples" / "purejaxrl_ppo.py"
    spec = importlib.util.spec_from_file_location("purejaxrl_ppo", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    backend = ld.TensorBoardBackend(log_dir)
    with ld.LoggingCallback(backend, "seeds", member_axes=member_axes) as logger:
        args = example.parse_args([f"--{name}={value}" for name, value in sizes.items()])
        train = example.make_train(logger, args)
        returned = map_seeds(train, jax.random.split(jax.random.key(3), SEEDS))
        jax.block_until_ready(returned)
    info = returned["metrics"]["info"]
    names = ("returned_episode", "returned_episode_returns", "returned_episode_lengths")
    return returned["metrics"]["log"] | {name: info[name] for name in names}


# --- an Anakin layout


class Walk(NamedTuple):
    """An environment: a walk on a line, whose episode ends 3 steps from its middle."""

    position: Any
    counted: ld.LoggingCallbackStepState


def make_anakin(logger: ld.LoggingCallback) -> Train:
    """The training of one batch element on one device; gradients are averaged over all."""

    def env_step(table: Any, carry: tuple[Any, Walk], key: Any) -> Any:
        now, walks = carry
        action = jax.vmap(jax.random.categorical)(jax.random.split(key, ENVS), table[now])
        position = walks.position + 2 * action - 1
        done = jnp.abs(position) >= 3
        reward = 0.25 * position.astype(float)
        ctx = ld.StepContext(walks.counted, None, None, done, reward)
        counted = jax.vmap(lambda ctx: logger.on_step(ctx, key=key))(ctx)
        position = position * ~done
        return (position + 2, Walk(position, counted)), (now, action, reward, done)

    def update(key: Any, carry: Any, count: Any) -> Any:
        table, walks = carry
        keys = jax.random.split(jax.random.fold_in(key, count), STEPS)

        def act(carry: Any, key: Any) -> Any:
            return env_step(table, carry, key)

        start = (walks.position + 2, walks)
        (_, walks), (seen, action, reward, done) = lax.scan(act, start, keys)

        def loss_of(table: Any) -> Any:
            chosen = jax.nn.log_softmax(table)[seen, action]
            togo = lax.cumsum(reward, axis=0, reverse=True)
            return -(chosen * togo).mean()

        loss, gradient = jax.value_and_grad(loss_of)(table)
        gradient = lax.pmean(lax.pmean(gradient, "batch"), "device")
        table = table - 0.3 * gradient
        log = {
            "loss": loss,
            "reward": ld.Mean.of(reward),
            "end": ld.Mean.of(reward, where=done),
            "ends": ld.Sum(done.sum()),
            "best": ld.Max(reward.max()),
            "table": table.max(),
        }
        done_here = (None, walks.counted, None, None, count, None, log)
        logger.on_iteration(ld.IterationContext(*done_here), key=key)
        logger.emit({"emitted": log}, (count + 1, 100))
        averages = {"average": walks.counted.average_return, "ended": walks.counted.average_length}
        returned = {"loss": loss, "reward": reward, "done": done, "table": table.max(), **averages}
        return (table, walks), returned

    def train(key: Any) -> Any:
        counted = jax.vmap(lambda k: logger.step_reset(ld.ResetContext(), key=k))(
            jax.random.split(key, ENVS)
        )
        walks = Walk(jnp.zeros(ENVS, int), counted)
        start = (jnp.zeros((5, 2)), walks)
        return lax.scan(lambda c, i: update(key, c, i), start, jnp.arange(UPDATES))[1]

    return train


def anakin(log_dir: Path, seeds: int) -> Any:
    """Of one seed, or of several beside it: arrays `(device, seed, batch, update, ...)`."""
    backend, axes = ld.TensorBoardBackend(log_dir), ("device", "batch")
    with ld.LoggingCallback(backend, "anakin", axis_name=axes) as logger:
        train = jax.vmap(make_anakin(logger), axis_name="batch")
        shape = (jax.device_count(), BATCH)
        if seeds > 1:
            train, shape = jax.vmap(train), (jax.device_count(), seeds, BATCH)
        keys = jax.random.split(jax.random.key(5), shape)
        returned = jax.block_until_ready(jax.pmap(train, axis_name="device")(keys))
    return returned if seeds > 1 else jax.tree.map(lambda x: x[:, None], returned)


# --- supervised


def examples() -> tuple[Any, Any]:
    """Inputs and outputs, split over all devices."""
    rng = np.random.default_rng(7)
    xs = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    ys = xs.sum(1) + rng.normal(size=EXAMPLES).astype(np.float32)
    over_devices = NamedSharding(Mesh(jax.devices(), ("device",)), P("device"))
    return jax.device_put(xs, over_devices), jax.device_put(ys, over_devices)


def of_errors(errors: Any) -> dict[str, Any]:
    """What a step logs, given the errors of the examples that it has."""
    squares = jnp.square(errors)
    return {
        "loss": ld.Mean.of(squares),
        "loss_far": ld.Mean.of(squares, where=squares > 4.0),
        "worst": ld.Max(squares.max()),
        "far": ld.Sum((squares > 4.0).sum()),
    }


def supervised_scan(log_dir: Path) -> Any:
    """All updates in one `scan` in `shard_map`, an evaluation now and then in a `cond`."""
    xs, ys = examples()

    def train(xs: Any, ys: Any) -> Any:
        def errors_of(weights: Any) -> Any:
            return xs @ weights - ys

        def update(weights: Any, i: Any) -> Any:
            errors = errors_of(weights)
            logger.emit({"train": of_errors(errors)}, i)
            gradient = jax.grad(lambda w: lax.pmean(jnp.square(errors_of(w)).mean(), "device"))
            weights = weights - 0.1 * gradient(weights)
            evaluated = errors_of(weights)
            lax.cond(
                i % EVALUATED == EVALUATED - 1,
                lambda: logger.emit({"test": of_errors(evaluated)}, i),
                lambda: None,
            )
            return weights, {"train": errors, "test": evaluated}

        return lax.scan(update, jnp.zeros(FEATURES), jnp.arange(EPOCHS))[1]

    with ld.Logger(ld.TensorBoardBackend(log_dir), "scan") as logger:
        spec = P("device")
        over = jax.shard_map(
            train, mesh=xs.sharding.mesh, in_specs=spec, out_specs=P(None, spec[0])
        )
        return jax.block_until_ready(jax.jit(over)(xs, ys))


def flax_nnx(log_dir: Path) -> Any:
    """A step by `nnx.jit`; the model has running averages and a random state of its own."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    layers = (nnx.Linear(FEATURES, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.relu)
    model = nnx.Sequential(*layers, nnx.Dropout(0.2, rngs=rngs), nnx.Linear(8, 1, rngs=rngs))
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def update(model: Any, optimizer: Any, xs: Any, ys: Any, i: Any) -> Any:
        def loss_of(model: Any) -> Any:
            errors = model(xs)[:, 0] - ys
            return jnp.square(errors).mean(), errors

        (_, errors), gradient = nnx.value_and_grad(loss_of, has_aux=True)(model)
        optimizer.update(model, gradient)
        logger.emit({"train": of_errors(errors)}, i)
        return errors

    @nnx.jit
    def evaluate(model: Any, xs: Any, ys: Any, i: Any) -> Any:
        errors = model(xs)[:, 0] - ys
        logger.emit({"test": of_errors(errors)}, i)
        return errors

    xs, ys = examples()
    train, test = [], []
    with ld.Logger(ld.TensorBoardBackend(log_dir), "nnx") as logger:
        for i in range(EPOCHS):
            model.train()
            train.append(update(model, optimizer, xs, ys, i))
            model.eval()
            # Those that are not evaluated are in no row.
            test.append(evaluate(model, xs, ys, i) if i % EVALUATED == EVALUATED - 1 else train[-1])
    return {"train": jnp.stack(train), "test": jnp.stack(test)}


def equinox(log_dir: Path) -> Any:
    """A step that is given its arrays to keep, one of which was logged just before."""
    model = eqx.nn.MLP(FEATURES, "scalar", 8, 1, key=jax.random.key(0))
    optimizer = optax.adam(0.1)

    @eqx.filter_jit(donate="all-except-first")
    def update(batch: Any, model: Any, state: Any, i: Any, average: Any) -> Any:
        xs, ys = batch

        def errors_of(model: Any) -> Any:
            return jax.vmap(model)(xs) - ys

        gradient = eqx.filter_grad(lambda model: jnp.square(errors_of(model)).mean())(model)
        errors = errors_of(model)
        logger.emit({"train": of_errors(errors)}, i)
        changes, state = optimizer.update(gradient, state)
        model = eqx.apply_updates(model, changes)
        evaluated = errors_of(model)
        lax.cond(
            i % EVALUATED == EVALUATED - 1,
            lambda: logger.emit({"test": of_errors(evaluated)}, i),
            lambda: None,
        )
        average = 0.5 * (average + jnp.square(errors).mean())
        return (model, state, i + 1, average), {"train": errors, "test": evaluated}

    batch = examples()
    everywhere = NamedSharding(batch[0].sharding.mesh, P())
    start = (
        model,
        optimizer.init(eqx.filter(model, eqx.is_array)),
        jnp.zeros((), int),
        jnp.ones(()),
    )
    carry = eqx.filter_shard(start, everywhere)
    returned = []
    with ld.Logger(ld.TensorBoardBackend(log_dir), "equinox") as logger:
        for i in range(EPOCHS):
            average = carry[-1]
            logger.log({"average": average}, i)
            carry, errors = update(batch, *carry)
            returned.append(errors)
            assert average.is_deleted()
    return jax.tree.map(lambda *each: jnp.stack(each), *returned)


PROGRAMS: dict[str, Callable[[Path], Any]] = {
    "seeds by jit": lambda log_dir: purejaxrl(log_dir, seeds_by_jit),
    "seeds by pmap": lambda log_dir: purejaxrl(log_dir, seeds_by_pmap, "device"),
    "seeds by shard_map": lambda log_dir: purejaxrl(log_dir, seeds_by_shard_map, "device"),
    "anakin": lambda log_dir: anakin(log_dir, seeds=1),
    "anakin, seeds": lambda log_dir: anakin(log_dir, seeds=3),
    "scan": supervised_scan,
    "nnx": flax_nnx,
    "equinox": equinox,
}


def main() -> None:
    os.environ["XLA_FLAGS"] += _QUICK
    group = ld.initialize()
    folder, *names = sys.argv[1:]
    for name in names:
        log_dir = Path(folder, name)
        log_dir.mkdir()
        returned = PROGRAMS[name](log_dir)
        np.savez(log_dir / "returned.npz", **jax.tree.map(np.asarray, returned))
    report({"process": group.process_index})


if __name__ == "__main__":
    main()
