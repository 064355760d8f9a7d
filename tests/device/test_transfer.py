"""The one host callback: who calls, how often, with what, in each form of program."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from tests.loop import iteration, mesh_of, step_states
from tests.memory import Memory
from tests.program import callbacks, compiled_text, payloads

DIRECT = "xla_buffer_python_cpu_callback"


class Sender:
    """Logs numbers from a step of any form, and gives back what came."""

    def __init__(self, log_dir):
        self.memory = Memory()
        self.logger = ld.LoggingCallback(self.memory, log_dir=log_dir)

    def send(self, x, count=1):
        """One row, whose metric is `x`; of several devices the mean."""
        iteration(self.logger, step_states([1]), {"x": x}, count)

    def run(self, program, *args):
        """What the program logs."""
        jax.block_until_ready(program(*args))
        self.logger.flush()
        assert self.logger.failures == ()
        return [row["train/x"] for _, row in self.memory.rows]


@pytest.fixture
def sender(tmp_path):
    sender = Sender(tmp_path)
    yield sender
    sender.logger.close()


def over(mesh, sender, names, **options):
    """A program that sends from `shard_map` over some of the axes of a mesh, in a loop."""

    def step(x):
        def iterate(count, x):
            sender.send(x[0] + 10 * count, count)
            return x

        return lax.fori_loop(1, 4, iterate, x)

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=P(names), out_specs=P(names), axis_names={*names}, **options
    )
    return jax.jit(mapped)


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 2)])
def test_a_program_on_each_device_hands_its_buffer_over_without_a_copy(sender, shape, monkeypatch):
    found = payloads(monkeypatch)
    mesh = mesh_of(*shape)
    program = over(mesh, sender, mesh.axis_names)
    x = jnp.arange(mesh.size, dtype=jnp.float32)
    text = compiled_text(program, x)
    assert (text.count(DIRECT), callbacks(text)) == (1, 1)
    mean = (mesh.size - 1) / 2
    assert sender.run(program, x) == [mean + 10, mean + 20, mean + 30]
    # One for each row, from the first device alone.
    assert len(found) == 3


def test_a_program_that_xla_splits_over_devices_calls_once(sender, monkeypatch):
    found = payloads(monkeypatch)
    x = jax.device_put(jnp.arange(8.0), NamedSharding(mesh_of(4), P("a")))
    program = jax.jit(lambda x: sender.send(x.sum()))
    text = compiled_text(program, x)
    assert (text.count(DIRECT), callbacks(text)) == (0, 1)
    assert sender.run(program, x) == [28]
    assert len(found) == 1


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(
    "types",
    [
        (AxisType.Auto, AxisType.Auto),
        (AxisType.Auto, AxisType.Auto, AxisType.Auto),
        (AxisType.Explicit, AxisType.Explicit, AxisType.Explicit),
        (AxisType.Auto, AxisType.Explicit, AxisType.Auto),
    ],
)
def test_beside_axes_that_are_left_to_xla_one_device_calls(sender, types, checked, monkeypatch):
    found = payloads(monkeypatch)
    devices = np.array(jax.devices()[: 2 ** len(types)]).reshape((2,) * len(types))
    mesh = Mesh(devices, ("a", "b", "c")[: len(types)], axis_types=types)
    program = over(mesh, sender, ("a",), check_vma=checked)
    x = jax.device_put(jnp.arange(2.0), NamedSharding(mesh, P("a")))
    assert sender.run(program, x) == [10.5, 20.5, 30.5]
    assert len(found) == 3


def test_a_jax_without_buffer_callbacks_calls_as_well(sender, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.experimental.buffer_callback", None)
    program = over(mesh_of(2), sender, ("a",))
    x = jnp.arange(2.0)
    assert DIRECT not in compiled_text(program, x)
    assert sender.run(program, x) == [10.5, 20.5, 30.5]


def test_without_the_hosts_processor_a_call_is_refused_while_tracing(sender, monkeypatch):
    """As with `JAX_PLATFORMS=cuda`, under which the first row would end the training."""

    def local_devices(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", local_devices)
    with pytest.raises(ValueError, match="names 'gpu' without `cpu`.* `JAX_PLATFORMS=cuda,cpu`"):
        jax.eval_shape(sender.send, jnp.asarray(1))


def test_under_vmap_one_call_has_the_elements_of_all(sender):
    program = jax.shard_map(
        lambda x: jax.vmap(sender.send)(x), mesh=mesh_of(2), in_specs=P("a"), out_specs=P()
    )
    assert sender.run(jax.jit(program), jnp.arange(6.0)) == [2.5]
    # The elements are 1.5, 2.5 and 3.5, each the mean over two devices.
    ((_, row),) = sender.memory.rows
    assert (row["train/x/member_min"], row["train/x/member_max"]) == (1.5, 3.5)


def test_it_may_stand_in_a_function_that_is_differentiated(sender):
    def loss(x):
        sender.send(10 * x)
        return x * x

    program = jax.shard_map(
        lambda x: jax.grad(lambda y: loss(y[0]))(x), mesh=mesh_of(1), in_specs=P(), out_specs=P()
    )
    assert jax.jit(program)(jnp.asarray([3.0])) == 6.0
    assert sender.run(lambda: None) == [30]
