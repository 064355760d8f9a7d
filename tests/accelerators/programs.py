"""Compiles the known run for devices that are not here, and prints what is in the programs.

    python -m tests.accelerators.programs v5e:16x16 data:callback scan:stack:64

A program is named `body:way:metrics`: see `BODIES` and `WAYS`.
"""

import functools as ft
import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.accelerators.compilers import count, devices_of

Log = Callable[[Any, dict[str, Any], Any, Any], Any]
_ENVIRONMENTS = 8
_WIDTH = 128


def states_of(count: int) -> Any:
    return jax.vmap(lambda _: ld.LoggingCallbackStepState.initial())(jnp.arange(count))


def metrics_of(value: Any, count: int) -> dict[str, Any]:
    return {f"m{i}": value * i for i in range(count)}


def callback(**options: Any) -> Callable[[], tuple[Any, Log]]:
    """A way to log: by `LoggingCallback` with these options."""

    def make() -> tuple[Any, Log]:
        folder = tempfile.mkdtemp()
        logger = ld.LoggingCallback([ld.NoOpBackend()], log_dir=folder, **options)
        key = jax.random.key(0)

        def log(state: Any, metrics: dict[str, Any], states: Any, i: Any) -> Any:
            context = ld.IterationContext(state, states, None, None, i, None, metrics, None, {})
            return logger.on_iteration(context, key=key)

        def start() -> Any:
            return logger.reset(ld.ResetContext(), key=key)

        return start, log

    return make


def _no_state() -> Any:
    return ()


def _stack(state: Any, metrics: dict[str, Any], states: Any, i: Any) -> Any:
    return jax.lax.pmean(jnp.stack([*metrics.values()]), "d")


def _reduce(state: Any, metrics: dict[str, Any], states: Any, i: Any) -> Any:
    return ld.reduce(metrics)


WAYS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "none": lambda: (_no_state, lambda *_: ()),
    "stack": lambda: (_no_state, _stack),
    "reduce": lambda: (_no_state, _reduce),
    "callback": callback(),
    "interval": callback(log_interval=10),
    "buffer": callback(rows_per_transfer=8),
    "delay": callback(delay=True),
}
# What these return is the next state of the callback.
_STATEFUL = ("callback", "interval", "buffer", "delay")


def scan(mesh: Mesh, way: str, metrics: int) -> tuple[Any, list[Any]]:
    """A loop without a collective of its own, over all devices."""
    start, log = WAYS[way]()

    def train(x: Any) -> Any:
        def iteration(carry: Any, i: Any) -> Any:
            x, states, state = carry
            x = jnp.tanh(x @ x)
            states = jax.vmap(lambda s, r: s.next(r, r > 0.5, 0.9))(states, x[0, :_ENVIRONMENTS])
            out = log(state, metrics_of(x[0, 0], metrics), states, i)
            state, out = (out, ()) if way in _STATEFUL else (state, out)
            return (x, states, state), out

        carry = (x, states_of(_ENVIRONMENTS), start())
        (x, states, _), out = jax.lax.scan(iteration, carry, jnp.arange(10))
        return x, states, out

    specs = {"in_specs": P("d"), "out_specs": (P("d"), P("d"), P())}
    step = jax.shard_map(train, mesh=mesh, check_vma=False, **specs)
    x = _argument(mesh, (mesh.size * _WIDTH, _WIDTH), P("d"))
    return step, [x]


def _update(params: Any, batch: Any, mean: Callable[[Any], Any]) -> tuple[Any, Any]:
    def loss(params: Any) -> Any:
        return jnp.mean((jnp.tanh(batch @ params[0]) @ params[1] - 1.0) ** 2)

    value, grads = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, mean(grads)), value


def data(mesh: Mesh, way: str, metrics: int) -> tuple[Any, list[Any]]:
    """A data-parallel training: one all-reduce of gradients an iteration, in `shard_map`."""
    start, log = WAYS[way]()

    def train(params: Any, batch: Any, states: Any) -> Any:
        def iteration(carry: Any, i: Any) -> Any:
            params, states, state = carry
            params, loss = _update(params, batch, lambda grads: jax.lax.pmean(grads, "d"))
            rewards = batch[0, :_ENVIRONMENTS] * i
            states = jax.vmap(lambda s, r: s.next(r, r > 0.5, 0.9))(states, rewards)
            out = log(state, metrics_of(loss, metrics), states, i)
            state, out = (out, ()) if way in _STATEFUL else (state, out)
            return (params, states, state), out

        (params, states, _), out = jax.lax.scan(
            iteration, (params, states, start()), jnp.arange(10)
        )
        return params, states, out

    specs = {"in_specs": (P(), P("d"), P("d")), "out_specs": (P(), P("d"), P())}
    step = jax.shard_map(train, mesh=mesh, check_vma=False, **specs)
    return step, _data_arguments(mesh)


def plain(mesh: Mesh, way: str, metrics: int) -> tuple[Any, list[Any]]:
    """The same in plain `jit`, on global arrays."""
    start, log = WAYS[way]()

    def train(params: Any, batch: Any, states: Any) -> Any:
        def iteration(carry: Any, i: Any) -> Any:
            params, states, state = carry
            params, loss = _update(params, batch, lambda grads: grads)
            rewards = batch[:, 0][: states.step.shape[0]] * i
            states = jax.vmap(lambda s, r: s.next(r, r > 0.5, 0.9))(states, rewards)
            out = log(state, metrics_of(loss, metrics), states, i)
            state, out = (out, ()) if way in _STATEFUL else (state, out)
            return (params, states, state), out

        return jax.lax.scan(iteration, (params, states, start()), jnp.arange(10))

    return train, _data_arguments(mesh)


def _data_arguments(mesh: Mesh) -> list[Any]:
    params = [_argument(mesh, (_WIDTH, _WIDTH), P()), _argument(mesh, (_WIDTH, 1), P())]
    batch = _argument(mesh, (mesh.size * 8, _WIDTH), P("d"))
    states = jax.eval_shape(ft.partial(states_of, mesh.size * _ENVIRONMENTS))
    sharding = NamedSharding(mesh, P("d"))
    states = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), states
    )
    return [params, batch, states]


def _argument(mesh: Mesh, shape: tuple[int, ...], spec: P) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))


BODIES = {"scan": scan, "data": data, "plain": plain}


def main() -> None:
    mesh = Mesh(np.array(devices_of(sys.argv[1])), ("d",))
    for name in sys.argv[2:]:
        body, way, *metrics = name.split(":")
        step, arguments = BODIES[body](mesh, way, int(metrics[0]) if metrics else 21)
        begin = time.perf_counter()
        lowered = jax.jit(step).lower(*arguments)
        traced = time.perf_counter()
        done = lowered.compile()
        seconds = [traced - begin, time.perf_counter() - traced]
        found = {"program": name, **count(done)._asdict(), "seconds": seconds}
        if "--text" in sys.argv:
            print(done.as_text())
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
