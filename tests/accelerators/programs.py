"""Compiles the known run for devices that are not here, and prints what is in the programs.

    python -m tests.accelerators.programs v5e:16x16 data:callback scan:stack:64 h100:2x4 data:none

A topology is followed by its programs, `body:way:metrics:extras`: see `BODIES`, `WAYS`, `EXTRAS`.
"""

import functools as ft
import json
import os
import sys
import tempfile
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
EXTRAS = {
    "max": "a `Max` and a `Min` among the metrics",
    "norm": "the norm of the reduced gradients among the metrics",
    "bf16": "gradients are reduced in bfloat16",
    "vma": "`check_vma=True`",
    "seeds": "`vmap` over four seeds",
}
_ENVIRONMENTS = 8
_WIDTH = 128
_SEEDS = 4
_REPLICATED = (P(), P())


def states_of(count: int) -> Any:
    return jax.vmap(lambda _: ld.LoggingCallbackStepState.initial())(jnp.arange(count))


def metrics_of(value: Any, count: int, extras: frozenset[str], grads: Any = ()) -> dict[str, Any]:
    metrics: dict[str, Any] = {f"m{i}": value * i for i in range(count)}
    if "max" in extras:
        metrics |= {"worst": ld.Max(value), "best": ld.Min(value)}
    if "norm" in extras:
        metrics["norm"] = jnp.sqrt(sum(jnp.sum(grad**2) for grad in grads))
    return metrics


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


def _each(state: Any, metrics: dict[str, Any], states: Any, i: Any) -> Any:
    means = {name: jax.lax.pmean(value, "d") for name, value in metrics.items()}
    jax.debug.callback(lambda **values: None, **means)
    return state


def _reduce(state: Any, metrics: dict[str, Any], states: Any, i: Any) -> Any:
    return ld.reduce(metrics)


def _render(state: Any, width: int, height: int) -> Any:
    return np.zeros((height, width, 3), np.uint8)


_VIDEO = {"rollout": lambda policy, key: jnp.zeros((4, 3)), "render": _render}
WAYS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "none": lambda: (_no_state, lambda state, *_: state),
    "stack": lambda: (_no_state, _stack),
    "each": lambda: (_no_state, _each),
    "reduce": lambda: (_no_state, _reduce),
    "callback": callback(),
    "interval": callback(log_interval=10),
    "buffer": callback(rows_per_transfer=8),
    "delay": callback(delay=True),
    "axis": callback(axis_name="d"),
    "video": callback(video_interval=5, video_num_steps=4, **_VIDEO),
}


def _train(
    program: tuple[str, int, frozenset[str]], mean: Callable[[Any], Any], forward: Any = None
) -> Callable[..., Any]:
    """A training with one all-reduce of gradients an iteration."""
    way, metrics, extras = program
    start, log = WAYS[way]()

    def train(params: Any, batch: Any, states: Any) -> Any:
        def iteration(carry: Any, i: Any) -> Any:
            params, states, state = carry

            def loss(params: Any) -> Any:
                output = jnp.tanh(batch @ params[0]) @ params[1]
                return jnp.mean(((forward or (lambda x: x))(output) - 1.0) ** 2)

            own = params
            if "vma" in extras:
                own = jax.tree.map(lambda p: jax.lax.pcast(p, "d", to="varying"), params)
            value, grads = jax.value_and_grad(loss)(own)
            if "bf16" in extras:
                grads = jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads)
            grads = jax.tree.map(lambda g: g.astype(jnp.float32), mean(grads))
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
            rewards = batch[:, 0][: states.step.shape[0]] * i
            states = jax.vmap(lambda s, r: s.next(r, r > 0.5, 0.9))(states, rewards)
            out = log(state, metrics_of(value, metrics, extras, grads), states, i)
            state, out = (state, out) if way in ("stack", "reduce") else (out, ())
            return (params, states, state), out

        (params, states, _), out = jax.lax.scan(
            iteration, (params, states, start()), jnp.arange(10)
        )
        return params, states, out

    if "seeds" in extras:

        def train_seeds(params: Any, batch: Any, states: Any) -> Any:
            seeds = jnp.arange(_SEEDS)
            own = jax.vmap(lambda seed: jax.tree.map(lambda p: p + seed, params))(seeds)
            return jax.vmap(train, (0, None, None))(own, batch, states)

        return train_seeds
    return train


def scan(mesh: Mesh, way: str, metrics: int, extras: frozenset[str]) -> tuple[Any, list[Any]]:
    """A loop without a collective of its own, over all devices."""
    start, log = WAYS[way]()

    def train(x: Any) -> Any:
        def iteration(carry: Any, i: Any) -> Any:
            x, states, state = carry
            x = jnp.tanh(x @ x)
            states = jax.vmap(lambda s, r: s.next(r, r > 0.5, 0.9))(states, x[0, :_ENVIRONMENTS])
            out = log(state, metrics_of(x[0, 0], metrics, extras), states, i)
            state, out = (state, out) if way in ("stack", "reduce") else (out, ())
            return (x, states, state), out

        carry = (x, states_of(_ENVIRONMENTS), start())
        (x, states, _), out = jax.lax.scan(iteration, carry, jnp.arange(10))
        return x, states, out

    specs = {"in_specs": P("d"), "out_specs": (P("d"), P("d"), P())}
    step = jax.shard_map(train, mesh=mesh, check_vma=False, **specs)
    x = _argument(mesh, (mesh.size * _WIDTH, _WIDTH), P("d"))
    return step, [x]


def data(mesh: Mesh, way: str, metrics: int, extras: frozenset[str]) -> tuple[Any, list[Any]]:
    """A data-parallel training in `shard_map`."""
    train = _train((way, metrics, extras), lambda grads: jax.lax.pmean(grads, "d"))
    states = P(None, "d") if "seeds" in extras else P("d")
    specs: dict[str, Any] = {"in_specs": (P(), P("d"), P("d")), "out_specs": (P(), states, P())}
    step = jax.shard_map(train, mesh=mesh, check_vma="vma" in extras, **specs)
    return step, _data_arguments(mesh)


def plain(mesh: Mesh, way: str, metrics: int, extras: frozenset[str]) -> tuple[Any, list[Any]]:
    """The same in plain `jit`, on global arrays."""
    return _train((way, metrics, extras), lambda grads: grads), _data_arguments(mesh)


def model(mesh: Mesh, way: str, metrics: int, extras: frozenset[str]) -> tuple[Any, list[Any]]:
    """The same in `shard_map`, with the parameters split along a second axis of the mesh."""
    mesh = Mesh(mesh.devices.reshape(-1, 2), ("d", "m"))
    train = _train(
        (way, metrics, extras),
        lambda grads: jax.lax.pmean(grads, "d"),
        lambda output: jax.lax.psum(output, "m"),
    )
    params = (P(None, "m"), P("m"))
    specs: dict[str, Any] = {
        "in_specs": ([*params], P("d"), P("d")),
        "out_specs": ([*params], P("d"), P()),
    }
    step = jax.shard_map(train, mesh=mesh, check_vma=False, **specs)
    return step, _data_arguments(mesh, params)


def _data_arguments(mesh: Mesh, specs: tuple[P, P] = _REPLICATED) -> list[Any]:
    shapes = ((_WIDTH, _WIDTH), (_WIDTH, 1))
    params = [_argument(mesh, shape, spec) for shape, spec in zip(shapes, specs, strict=True)]
    batch = _argument(mesh, (mesh.shape["d"] * 8, _WIDTH), P("d"))
    states = jax.eval_shape(ft.partial(states_of, mesh.shape["d"] * _ENVIRONMENTS))
    sharding = NamedSharding(mesh, P("d"))
    states = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), states
    )
    return [params, batch, states]


def _argument(mesh: Mesh, shape: tuple[int, ...], spec: P) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))


BODIES = {"scan": scan, "data": data, "plain": plain, "model": model}


def _cpu_seconds() -> float:
    """Of this process and of the assembler that a GPU's compiler calls: no load changes them."""
    return sum(os.times()[:4])


def main() -> None:
    topology, mesh = "", None
    for name in sys.argv[1:]:
        body, way, metrics, extras = [*name.split(":"), "", "", ""][:4]
        if body not in BODIES:
            topology = name
            mesh = Mesh(np.array(devices_of(name)), ("d",))
            continue
        assert mesh is not None, "a topology comes first"
        wanted = frozenset(extras.split(",") if extras else ())
        assert wanted <= EXTRAS.keys(), wanted
        step, arguments = BODIES[body](mesh, way, int(metrics or 21), wanted)
        begin = _cpu_seconds()
        traced = jax.jit(step).trace(*arguments)
        seconds = [_cpu_seconds()]
        lowered = traced.lower()
        seconds += [_cpu_seconds()]
        done = lowered.compile()
        seconds = [*np.diff([begin, *seconds, _cpu_seconds()])]
        found = {"topology": topology, "program": name, **count(done)._asdict()}
        print(json.dumps(found | {"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
