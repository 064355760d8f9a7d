"""One small scenario a call: what both loggers do in a run of several processes.

Arguments: name of the scenario (a function below), log_dir, what it takes beside that.
"""

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from lerax_dist.device._pack import Reduced
from tests.memory import Memory
from tests.multiprocess.launch import report


def raised(function, *args, **kwargs):
    """Type and text of what a call raises; `None` if nothing."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


def mesh():
    return jax.sharding.Mesh(np.array(jax.devices()), ("d",), axis_types=(AxisType.Auto,))


def whole(array, spec):
    sharding = NamedSharding(mesh(), spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def iterate(logger, values):
    """A training of 10 iterations over all devices, whose metric is the mean of `values`."""

    def learn(values):
        def iteration(carry, count):
            context = ld.IterationContext(
                ld.EmptyCallbackState(), states, None, None, count, None, {"x": carry.mean()}
            )
            logger.on_iteration(context, key=key)
            return carry + 1.0, None

        key = jax.random.key(0)
        zero = jax.tree.map(lambda x: x[None], ld.LoggingCallbackStepState.initial())
        states = jax.tree.map(lambda x: x + jnp.zeros_like(values).astype(x.dtype), zero)
        return jax.lax.scan(iteration, values, jnp.arange(1, 11))[0]

    mapped = jax.shard_map(learn, mesh=mesh(), in_specs=P("d"), out_specs=P("d"))
    out = jax.jit(mapped)(whole(values, P("d")))
    return jax.block_until_ready(out).addressable_shards[0].data.tolist()


class Slow(Memory):
    """Opens only after the training is over."""

    let_go = threading.Event()

    def open(self, name):
        self.let_go.wait(60)
        super().open(name)


class Broken(Memory):
    def log_scalars(self, scalars, step):
        raise ConnectionError("no network")


class Hangs(Memory):
    def log_scalars(self, scalars, step):
        threading.Event().wait()


def unjoined(log_dir):
    return {
        "process": int(os.environ["OMPI_COMM_WORLD_RANK"]),
        "callback": raised(ld.LoggingCallback, Memory(), log_dir=log_dir),
        "logger": raised(ld.Logger, Memory(), log_dir=log_dir),
        "alone": raised(ld.Logger, Memory(), log_dir=f"{log_dir}/alone", group=ld.SoloGroup()),
    }


def plain_loop(log_dir):
    ld.initialize()
    sharded = whole(np.arange(8.0), P("d"))
    replicated = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh(), P()))(sharded)
    with ld.Logger(ld.TensorBoardBackend(log_dir), "r", hparams={"a": 1}, strict=True) as logger:
        refused = raised(logger.log, {"train": {"x": sharded}}, 0)
        for step in range(5):
            logger.log({"sum": replicated + step, "mine": float(jax.process_index())}, step)
    return {"refused": refused}


def elsewhere(log_dir):
    """Values on the devices of some of three processes."""
    ld.initialize()
    mine = jax.process_index()

    def on(*processes, shape=()):
        devices = [device for device in jax.devices() if device.process_index in processes]
        some = jax.sharding.Mesh(np.array(devices), ("d",), axis_types=(AxisType.Auto,))
        held = [
            jax.device_put(jnp.full(shape, float(mine)), device)
            for device in devices
            if device.process_index == mine
        ]
        sharding = NamedSharding(some, P())
        return jax.make_array_from_single_device_arrays(shape, sharding, held, dtype=jnp.float32)

    with ld.Logger(Memory(), "r", log_dir=log_dir, strict=True) as logger:
        for step, processes in enumerate([(0, 1, 2), (0, 1), (0,), (mine,)]):
            logger.log({"x": on(*processes)}, step)
        refused = {
            "later": raised(logger.log, {"x": on(1, 2)}, 9),
            "reduced": raised(logger.log, Reduced(("x",), on(1, 2, shape=(1,))), 9),
            "one": raised(logger.log, {"z": on(1)}, 9),
        }
    return {"refused": refused}


def threads(log_dir):
    """Which threads of the package there are while rows are logged."""
    ld.initialize()
    with ld.LoggingCallback(Memory(), "r", log_dir=log_dir) as logger:
        iterate(logger, np.arange(8.0))
        names = [thread.name for thread in threading.enumerate()]
    return {"threads": sorted(name for name in names if name.startswith("lerax_dist"))}


def bad_folder(log_dir):
    group = ld.initialize()
    folder = f"{log_dir}/file" if group.is_writer else log_dir
    start = time.monotonic()
    error = raised(ld.LoggingCallback, Memory(), "r", log_dir=folder)
    return {"error": error, "seconds": time.monotonic() - start}


def bad_argument(log_dir):
    group = ld.initialize()
    start = time.monotonic()
    error = raised(ld.Logger, [] if group.is_writer else Memory(), "r", log_dir=log_dir)
    return {"error": error, "seconds": time.monotonic() - start}


def other_name(log_dir):
    group = ld.initialize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ld.Logger(Memory(), f"mine-{group.process_index}", log_dir=log_dir) as logger:
            pass
    return {"name": logger.name, "failures": [failure.message for failure in logger.failures]}


def outside_jit(log_dir):
    ld.initialize()
    with ld.LoggingCallback(Memory(), "r", log_dir=log_dir) as logger:
        states = ld.LoggingCallbackStepState.initial()
        context = ld.IterationContext(
            ld.EmptyCallbackState(), states, None, None, jnp.asarray(1), None, {}
        )
        return {"error": raised(logger.on_iteration, context, key=jax.random.key(0))}


def program_of_its_own(log_dir):
    """Each process runs a step on its own devices, though JAX has joined them."""
    ld.initialize()
    memory = Memory()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with ld.LoggingCallback(memory, "r", log_dir=log_dir) as logger:
            states = ld.LoggingCallbackStepState.initial()

            def step(value):
                context = ld.IterationContext(
                    ld.EmptyCallbackState(), states, None, None, jnp.asarray(1), None, {"x": value}
                )
                logger.on_iteration(context, key=jax.random.key(0))

            jax.jit(step)(jnp.float32(jax.process_index()))
            logger.flush()
    return {"rows": len(memory.rows), "warnings": [str(entry.message) for entry in shown]}


def other_mesh(log_dir):
    """A mesh that starts with a device of process 1."""
    ld.initialize()
    with ld.LoggingCallback(Memory(), "r", log_dir=log_dir) as logger:
        states = ld.LoggingCallbackStepState.initial()

        def step(value):
            context = ld.IterationContext(
                ld.EmptyCallbackState(), states, None, None, jnp.asarray(1), None, {"x": value[0]}
            )
            logger.on_iteration(context, key=jax.random.key(0))
            return value

        over = jax.sharding.Mesh(np.array(jax.devices()[::-1]), ("data",))
        values = jax.make_array_from_callback(
            (jax.device_count(),), NamedSharding(over, P("data")), lambda index: np.ones(1)
        )
        jax.jit(jax.shard_map(step, mesh=over, in_specs=P("data"), out_specs=P("data")))(values)
    return {"failures": [str(failure) for failure in logger.failures]}


def bad_backends(log_dir):
    """A backend that raises and one that hangs, beside a good one."""
    ld.initialize()
    good = Memory()
    logger = ld.LoggingCallback([Broken(), Hangs(), good], "r", log_dir=log_dir)
    out = iterate(logger, np.arange(8.0, dtype=np.float32))
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The one that raises is given up after pauses of 5.6 s in all.
        logger.close(timeout=14.0)
    return {
        "out": out,
        "seconds": time.monotonic() - start,
        "rows": [float(row["train/x"]) for _, row in good.rows],
        "failures": [f"{failure.where}: {failure.message}" for failure in logger.failures],
    }


class Shut(Memory):
    def open(self, name):
        raise PermissionError("no key")


def required(log_dir):
    """A backend that cannot open, without which the run must not start; then one that can."""
    ld.initialize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = raised(ld.Logger, [Memory(), ld.Required(Shut())], "r", log_dir=log_dir)
    with ld.Logger(ld.Required(Memory()), "good", log_dir=log_dir) as logger:
        logger.log({"x": 1.0}, 1)
    return {"error": error, "failures": [failure.message for failure in logger.failures]}


@ld.ProcessGroup.register
class Forgetful:
    """A group that cannot say on process 0, once the run is taken, which hosts there are."""

    def __init__(self, group):
        self._group = group

    @property
    def hosts(self):
        raise ConnectionError("the service is gone")

    def __getattr__(self, name):
        return getattr(self._group, name)


def required_and_lost(log_dir):
    """Process 0 fails between the name of the run and its word on the required backend."""
    group = ld.initialize()
    required = ld.Required(Memory())
    error = raised(ld.Logger, required, "r", log_dir=log_dir, group=Forgetful(group))
    with ld.Logger(required, "r", log_dir=log_dir) as logger:
        return {"error": error, "name": logger.name}


def slow_open(log_dir):
    """Others train on while process 0's backend is not open yet; it gets every row later."""
    ld.initialize()
    slow = Slow()
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = ld.LoggingCallback(slow, "r", log_dir=log_dir, open_timeout=0.1)
    out = iterate(logger, np.arange(8.0, dtype=np.float32))
    seconds = time.monotonic() - start
    Slow.let_go.set()
    logger.close()
    return {
        "out": out,
        "seconds": seconds,
        "rows": [float(row["train/x"]) for _, row in slow.rows],
    }


def preempted(log_dir, way):
    """A loop with a collective that a signal ends, to process 1 or to all at different steps, or to
    process 2 before the logger is made; and JAX's own sync point. It resumes from its checkpoint.
    """
    group = ld.initialize()
    index = group.process_index
    if way == "early" and index == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    here = np.full(jax.local_device_count(), 1.0, np.float32)
    ones = jax.make_array_from_process_local_data(NamedSharding(mesh(), P("d")), here)
    total = jax.jit(jnp.sum)
    checkpoint = Path(log_dir, "state.eqx")
    state = ld.RunState.empty()
    if checkpoint.exists():
        state = eqx.tree_deserialise_leaves(checkpoint, state)
    steps, left, synced = [], None, None
    with ld.Logger(Memory(), log_dir=log_dir, state=state, handle_signals=True) as logger:
        first = 100_000 * logger.incarnation
        for step in range(first, first + 100_000):
            value = total(ones)
            if index == 1:
                # It is behind the others, which need not wait for their devices.
                jax.block_until_ready(value)
            logger.log({"x": value}, step)
            steps.append(step)
            if step == first + 5 + index and (way == "all" or way == "one" and index == 1):
                os.kill(os.getpid(), signal.SIGTERM)
            if synced is None and multihost_utils.reached_preemption_sync_point(step):
                synced = step
            if left is None and logger.preempted:
                left = step
            if None not in (left, synced):
                break
        state = logger.state()
    if group.is_writer:
        eqx.tree_serialise_leaves(checkpoint, state)
    os.kill(os.getpid(), signal.SIGTERM)  # JAX has its handler again
    leaves = [leaf.tolist() for leaf in jax.tree.leaves(state)]
    return {
        "last": steps[-1],
        "left": left,
        "synced": synced,
        "again": logger.preempted,
        "incarnation": logger.incarnation,
        "state": leaves,
    }


if __name__ == "__main__":
    answer = globals()[sys.argv[1]](*sys.argv[2:])
    report({"process": jax.process_index() if sys.argv[1] != "unjoined" else 0, **answer})
