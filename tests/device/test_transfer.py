"""The one host callback: who calls, how often, with what, in each form of program."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lerax_dist.device._axes import find_axes
from lerax_dist.device._transfer import send
from tests.program import callbacks, compiled_text

DIRECT = "xla_buffer_python_cpu_callback"


class Host:
    """Keeps what comes."""

    def __init__(self):
        self.payloads = []

    def deliver(self, part, parts, payload):
        self.payloads.append((part, parts, *np.asarray(payload).tolist()))

    def send(self, x):
        send(self.deliver, jnp.asarray([7]), jnp.stack([x, x + 1]), find_axes(None).manual)


@pytest.fixture
def host():
    return Host()


def mesh_of(*shape):
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, ("a", "b")[: len(shape)], axis_types=(AxisType.Auto,) * len(shape))


def over(mesh, host, names):
    """A program that sends from `shard_map` over some of the axes of a mesh, in a loop."""

    def step(x):
        def iterate(count, x):
            host.send(x[0] + count)
            return x

        return lax.fori_loop(0, 3, iterate, x)

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=P(names), out_specs=P(names), axis_names=set(names)
    )
    return jax.jit(mapped)


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 2)])
def test_a_program_on_each_device_hands_its_buffer_over_without_a_copy(host, shape):
    mesh = mesh_of(*shape)
    program = over(mesh, host, mesh.axis_names)
    x = jnp.arange(mesh.size, dtype=jnp.int32) + 10
    text = compiled_text(program, x)
    assert (text.count(DIRECT), callbacks(text)) == (1, 1)
    jax.block_until_ready(program(x))
    jax.effects_barrier()
    assert host.payloads == [(0, 1, 7, 10 + count, 11 + count) for count in range(3)]


def test_a_program_that_xla_splits_over_devices_calls_once(host):
    mesh = mesh_of(4)
    x = jax.device_put(jnp.arange(8, dtype=jnp.int32), NamedSharding(mesh, P("a")))
    program = jax.jit(lambda x: host.send(x.sum()))
    text = compiled_text(program, x)
    assert (text.count(DIRECT), callbacks(text)) == (0, 1)
    jax.block_until_ready(program(x))
    jax.effects_barrier()
    assert host.payloads == [(0, 1, 7, 28, 29)]


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
def test_beside_axes_that_are_left_to_xla_one_device_calls(host, types, checked):
    shape = (2,) * len(types)
    devices = np.array(jax.devices()[: 2 ** len(types)]).reshape(shape)
    mesh = Mesh(devices, ("a", "b", "c")[: len(types)], axis_types=types)

    def step(x):
        def iterate(count, x):
            host.send(lax.psum(x[0], "a") + count)
            return x

        return lax.fori_loop(0, 3, iterate, x)

    program = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=P("a"),
            out_specs=P("a"),
            axis_names={"a"},
            check_vma=checked,
        )
    )
    x = jax.device_put(jnp.arange(2, dtype=jnp.int32), NamedSharding(mesh, P("a")))
    jax.block_until_ready(program(x))
    jax.effects_barrier()
    assert sorted(host.payloads) == [(0, 1, 7, 1 + count, 2 + count) for count in range(3)]


def test_a_jax_without_buffer_callbacks_calls_as_well(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.experimental.buffer_callback", None)
    program = over(mesh_of(2), host, ("a",))
    x = jnp.arange(2, dtype=jnp.int32)
    assert DIRECT not in compiled_text(program, x)
    jax.block_until_ready(program(x))
    jax.effects_barrier()
    assert sorted(host.payloads) == [(0, 1, 7, count, 1 + count) for count in range(3)]


def test_without_the_hosts_processor_a_call_is_refused_while_tracing(host, monkeypatch):
    """As with `JAX_PLATFORMS=cuda`, under which the first row would end the training."""

    def local_devices(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", local_devices)
    with pytest.raises(ValueError, match="no `cpu` beside 'gpu'.* `JAX_PLATFORMS=cuda,cpu`"):
        jax.eval_shape(host.send, jnp.asarray(1))


def test_under_vmap_each_element_calls(host):
    program = jax.shard_map(
        lambda x: jax.vmap(host.send)(x), mesh=mesh_of(2), in_specs=P("a"), out_specs=P()
    )
    jax.block_until_ready(jax.jit(program)(jnp.arange(6, dtype=jnp.int32)))
    jax.effects_barrier()
    assert sorted(host.payloads) == [(0, 1, 7, x, x + 1) for x in range(3)]


def test_it_may_stand_in_a_function_that_is_differentiated(host):
    def loss(x):
        host.send((10 * x).astype(jnp.int32))
        return x * x

    program = jax.shard_map(
        lambda x: jax.grad(lambda y: loss(y[0]))(x), mesh=mesh_of(1), in_specs=P(), out_specs=P()
    )
    assert jax.jit(program)(jnp.asarray([3.0])) == 6.0
    jax.effects_barrier()
    assert host.payloads == [(0, 1, 7, 30, 31)]
