"""One known training in every form that a program is compiled in, and its rows by NumPy alone.

Each program logs the same iterations of the same environments, however they are split. A new form
is one function here and one row of the table in docs/transforms.md.
"""

import functools as ft
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import equinox as eqx
import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import iteration, step_states

ITERATIONS, ENVIRONMENTS = 4, 8
_rng = np.random.default_rng(11)
# (iteration, environment)
VALUES = _rng.normal(1.0, 2.0, (ITERATIONS, ENVIRONMENTS)).astype(np.float32)
MASKS = _rng.random((ITERATIONS, ENVIRONMENTS)) < 0.4
# No value anywhere in one iteration.
MASKS[1] = False

# Logs one iteration: its number from 0, and this device's values and mask.
Log = Callable[[Any, jax.Array, jax.Array], None]
Row = tuple[int, dict[str, float]]


def metrics_of(values: jax.Array, mask: jax.Array) -> dict[str, Any]:
    return {
        "plain": values.mean(),
        "mean": ld.Mean.of(values, where=mask),
        "sum": ld.Sum(values.sum()),
        "max": ld.Max(values.max()),
        "min": ld.Min(values.min()),
    }


def expected_of(values: np.ndarray, mask: np.ndarray, prefix: str) -> dict[str, float]:
    values = values.astype(np.float64)
    metrics = {"plain": values.mean(), "sum": values.sum()}
    metrics |= {"max": values.max(), "min": values.min()}
    if mask.any():
        metrics["mean"] = values[mask].mean()
    return {prefix + name: float(value) for name, value in metrics.items()}


def expected(iterations: tuple[int, ...]) -> list[Row]:
    """The rows of `on_iteration`: each environment takes one step an iteration."""
    rows = []
    for i in iterations:
        values = VALUES[i].astype(np.float64)
        episodes = {
            "episode/return": values.mean(),
            "episode/return_min": values.min(),
            "episode/return_max": values.max(),
            "episode/return_std": values.std(),
            "episode/length": 1.0,
            "episode/count": float(ENVIRONMENTS),
        }
        row = expected_of(VALUES[i], MASKS[i], "train/") | episodes
        rows.append(((i + 1) * ENVIRONMENTS, row))
    return rows


def expected_emitted(iterations: tuple[int, ...]) -> list[Row]:
    """The rows of `emit`."""
    return [(10 * i, expected_of(VALUES[i], MASKS[i], "eval/")) for i in iterations]


def log_to(logger: Any, axis_name: Any) -> Log:
    """What logs an iteration by `on_iteration` and by `emit`."""

    def log(i: Any, values: jax.Array, mask: jax.Array) -> None:
        count = jnp.asarray(i, jnp.int32)
        states = step_states(jnp.full(values.shape, count + 1), values)
        iteration(logger, states, metrics_of(values, mask), count)
        emitted = {"eval": metrics_of(values, mask)}
        logger.emit(emitted, step=10 * count, axis_name=axis_name)

    return log


@final
@dataclass(frozen=True)
class Program:
    """One form of program.

    Attributes:
        folder: name of the folder of its run.
        run: runs it; given what logs an iteration.
        axis_name: of the logger.
        options: other arguments of the logger.
        iterations: which iterations are logged.
        most_devices: how many devices it can run over; `None` for any.
        most_processes: how many processes it can run over.
    """

    folder: str
    run: Callable[[Log], None]
    axis_name: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    iterations: tuple[int, ...] = tuple(range(ITERATIONS))
    most_devices: int | None = None
    most_processes: int | None = None

    def can_run(self, devices: int, processes: int) -> bool:
        few = self.most_devices is None or devices <= self.most_devices
        return few and (self.most_processes is None or processes <= self.most_processes)


PROGRAMS: dict[str, Program] = {}


def program(name: str, **fields: Any) -> Callable[[Callable[[Log], None]], Callable[[Log], None]]:
    def add(run: Callable[[Log], None]) -> Callable[[Log], None]:
        folder = "-".join(re.findall(r"\w+", name))
        PROGRAMS[name] = Program(folder, run, **fields)
        return run

    return add


def mesh(*shape: int, kind: AxisType = AxisType.Auto, backward: bool = False) -> Mesh:
    """All devices along the axes "data" and "model"."""
    devices = np.array(jax.devices()[::-1] if backward else jax.devices())
    shape = shape or (devices.size,)
    names = ("data", "model")[: len(shape)]
    return Mesh(devices.reshape(shape), names, axis_types=(kind,) * len(shape))


def put(array: np.ndarray, over: Mesh, spec: P) -> jax.Array:
    sharding = NamedSharding(over, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


EACH = P(None, "data")


def data(over: Mesh, spec: P = EACH) -> tuple[jax.Array, jax.Array]:
    return put(VALUES, over, spec), put(MASKS, over, spec)


def over_iterations(log: Log, values: Any, masks: Any) -> None:
    """A scan over all iterations."""

    def body(i: Any, each: Any) -> Any:
        log(i, *each)
        return i + 1, None

    lax.scan(body, jnp.zeros((), jnp.int32), (values, masks))


def mapped(body: Any, over: Mesh, spec: P = EACH, **options: Any) -> Any:
    return jax.shard_map(body, mesh=over, in_specs=(spec, spec), out_specs=P(), **options)


def pairs() -> tuple[int, int]:
    """A mesh of two axes."""
    count = jax.device_count()
    return (2, count // 2) if count % 2 == 0 else (1, count)


# --- one program over all devices, arrays are global


@program("jit")
def _(log: Log) -> None:
    step = jax.jit(log)
    values, masks = data(mesh())
    for i in range(ITERATIONS):
        step(i, *(jax.jit(lambda a, i: a[i])(each, i) for each in (values, masks)))


@program("scan")
def _(log: Log) -> None:
    jax.jit(lambda *both: over_iterations(log, *both))(*data(mesh()))


@program("while_loop")
def _(log: Log) -> None:
    def train(values: Any, masks: Any) -> Any:
        def body(i: Any) -> Any:
            log(i, values[i], masks[i])
            return i + 1

        return lax.while_loop(lambda i: i < ITERATIONS, body, jnp.zeros((), jnp.int32))

    jax.jit(train)(*data(mesh()))


@program("cond", iterations=(0, 2))
def _(log: Log) -> None:
    def every_other(i: Any, *both: Any) -> None:
        lax.cond(i % 2 == 0, log, lambda *_: None, i, *both)

    jax.jit(lambda *both: over_iterations(every_other, *both))(*data(mesh()))


@program("explicit mesh")
def _(log: Log) -> None:
    over = mesh(kind=AxisType.Explicit)
    with jax.set_mesh(over):
        jax.jit(lambda *both: over_iterations(log, *both))(*data(over))


@program("AOT")
def _(log: Log) -> None:
    both = data(mesh())
    jax.jit(lambda *both: over_iterations(log, *both)).lower(*both).compile()(*both)


@program("eqx.filter_jit")
def _(log: Log) -> None:
    @eqx.filter_jit
    def train(*both: Any) -> None:
        over_iterations(log, *both)

    train(*data(mesh()))


@program("nnx.jit")
def _(log: Log) -> None:
    from flax import nnx

    class Counter(nnx.Module):
        def __init__(self) -> None:
            self.count = nnx.Variable(jnp.zeros((), jnp.int32))

    @nnx.jit
    def train(counter: Any, *both: Any) -> None:
        log(counter.count[...], *both)
        counter.count[...] += 1

    counter = Counter()
    for i in range(ITERATIONS):
        train(counter, *(put(each[i], mesh(), P("data")) for each in (VALUES, MASKS)))


@program("x64")
def _(log: Log) -> None:
    with jax.enable_x64(True):
        jax.jit(lambda *both: over_iterations(log, *both))(*data(mesh()))


@program("debug_nans")
def _(log: Log) -> None:
    with jax.debug_nans(True):
        jax.jit(lambda *both: over_iterations(log, *both))(*data(mesh()))


@program("transfer_guard")
def _(log: Log) -> None:
    both = data(mesh())
    with jax.transfer_guard("disallow"):
        jax.jit(lambda *both: over_iterations(log, *both))(*both)


@program("disable_jit", most_devices=1)
def _(log: Log) -> None:
    with jax.disable_jit():
        for i in range(ITERATIONS):
            log(jnp.asarray(i), jnp.asarray(VALUES[i]), jnp.asarray(MASKS[i]))


@program("grad")
def _(log: Log) -> None:
    def loss(weight: Any, i: Any, values: Any, mask: Any) -> Any:
        log(i, values * weight, mask)
        return (weight * values).sum()

    def descend(i: Any, *both: Any) -> None:
        jax.value_and_grad(loss)(jnp.ones(()), i, *both)

    jax.jit(lambda *both: over_iterations(descend, *both))(*data(mesh()))


@program("checkpoint")
def _(log: Log) -> None:
    @jax.checkpoint
    def loss(weight: Any, i: Any, values: Any, mask: Any) -> Any:
        log(i, values, mask)
        return (jnp.sin(weight) * values).sum()

    def whole(values: Any, masks: Any) -> Any:
        def body(i: Any, each: Any) -> Any:
            return i + 1, jax.grad(loss)(jnp.ones(()), i, *each)

        return lax.scan(body, jnp.zeros((), jnp.int32), (values, masks))[1]

    jax.block_until_ready(jax.jit(whole)(*data(mesh())))


@program("custom_vjp")
def _(log: Log) -> None:
    @jax.custom_vjp
    def scaled(weight: Any, i: Any, values: Any, mask: Any) -> Any:
        return weight * values.sum()

    def forward(weight: Any, i: Any, values: Any, mask: Any) -> Any:
        return scaled(weight, i, values, mask), (weight, i, values, mask)

    def backward(kept: Any, cotangent: Any) -> Any:
        weight, i, values, mask = kept
        log(i, values * cotangent, mask)
        return (cotangent * values.sum(), None, jnp.zeros_like(values), None)

    scaled.defvjp(forward, backward)

    def descend(i: Any, *both: Any) -> Any:
        return jax.grad(scaled)(jnp.ones(()), i, *both)

    def whole(values: Any, masks: Any) -> Any:
        def body(i: Any, each: Any) -> Any:
            return i + 1, descend(i, *each)

        return lax.scan(body, jnp.zeros((), jnp.int32), (values, masks))[1]

    jax.block_until_ready(jax.jit(whole)(*data(mesh())))


# --- one program on each device


@program("shard_map")
def _(log: Log) -> None:
    over = mesh()
    jax.jit(mapped(lambda *both: over_iterations(log, *both), over))(*data(over))


@program("shard_map, check_vma=False")
def _(log: Log) -> None:
    over = mesh()
    body = mapped(lambda *both: over_iterations(log, *both), over, check_vma=False)
    jax.jit(body)(*data(over))


@program("shard_map in a scan")
def _(log: Log) -> None:
    over = mesh()
    spec = P("data")

    def step(i: Any, *both: Any) -> None:
        jax.shard_map(log, mesh=over, in_specs=(P(), spec, spec), out_specs=P())(i, *both)

    jax.jit(lambda *both: over_iterations(step, *both))(*data(over))


@program("shard_map, some axes manual")
def _(log: Log) -> None:
    over = mesh(*pairs())
    body = mapped(lambda *both: over_iterations(log, *both), over, axis_names={"data"})
    jax.jit(body)(*data(over, P(None, ("data", "model"))))


@program("shard_map in shard_map")
def _(log: Log) -> None:
    over = mesh(*pairs())

    def inner(*both: Any) -> None:
        body = ft.partial(over_iterations, log)
        spec = P(None, "model")
        jax.shard_map(body, in_specs=(spec, spec), out_specs=P(), axis_names={"model"})(*both)

    body = mapped(inner, over, axis_names={"data"})
    with jax.set_mesh(over):
        jax.jit(body)(*data(over, P(None, ("data", "model"))))


@program("shard_map, replicated along an axis")
def _(log: Log) -> None:
    over = mesh(*pairs())
    jax.jit(mapped(lambda *both: over_iterations(log, *both), over))(*data(over))


@program("shard_map, replicated along an axis, check_vma=False", axis_name="data")
def _(log: Log) -> None:
    over = mesh(*pairs())
    body = mapped(lambda *both: over_iterations(log, *both), over, check_vma=False)
    jax.jit(body)(*data(over))


# Over several processes the rows reach one that does not write, which drops them and says so.
@program("shard_map, devices in another order", most_processes=1)
def _(log: Log) -> None:
    over = mesh(backward=True)
    jax.jit(mapped(lambda *both: over_iterations(log, *both), over))(*data(over))


def each_device() -> list[np.ndarray]:
    """Values and masks of the devices of this process, `(device, iteration, environment)`."""
    count = jax.local_device_count()
    here = jax.process_index() * count
    split = [np.stack(np.split(a, jax.device_count(), axis=1)) for a in (VALUES, MASKS)]
    return [a[here : here + count] for a in split]


@program("pmap")
def _(log: Log) -> None:
    def train(values: Any, masks: Any) -> Any:
        over_iterations(log, values, masks)
        return values.sum()  # over several processes `pmap` needs a result

    jax.block_until_ready(jax.pmap(train, axis_name="data")(*each_device()))


@program("pmap of vmap, both named", axis_name=("data", "batch"))
def _(log: Log) -> None:
    def train(values: Any, masks: Any) -> Any:
        over_iterations(lambda i, v, m: log(i, v[None], m[None]), values, masks)
        return values.sum()

    both = jax.vmap(train, axis_name="batch", in_axes=1)
    jax.block_until_ready(jax.pmap(both, axis_name="data")(*each_device()))


@program("vmap, named", axis_name="batch", most_devices=1)
def _(log: Log) -> None:
    def train(values: Any, masks: Any) -> None:
        over_iterations(lambda i, v, m: log(i, v[None], m[None]), values, masks)

    jax.jit(jax.vmap(train, axis_name="batch", in_axes=1))(VALUES, MASKS)


@program("several threads", most_processes=1)
def _(log: Log) -> None:
    step = jax.jit(log)
    done = [threading.Event() for _ in range(ITERATIONS + 1)]
    done[0].set()

    def run(i: int) -> None:
        done[i].wait(60)
        step(i, jnp.asarray(VALUES[i]), jnp.asarray(MASKS[i]))
        done[i + 1].set()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(ITERATIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
