"""XLA's compilers for TPU and GPU on a machine that has neither, and what is in their programs."""

import math
import os
import re
from collections import Counter
from typing import Any, NamedTuple

# What the GPU compiler asks of the card, of one of 80 GB.
_H100 = """gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 1 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_BYTES = {"pred": 1, "bf16": 2, "f32": 4, "s32": 4, "u32": 4}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def devices_of(topology: str) -> list[Any]:
    """Devices that are not here: `v5e:4x4` (4 chips a host), two slices as `2*v5e:4x4`, or H100 as
    `h100:HOSTSxGPUS`. `cpu:4` are simulated ones that are here, if asked for first."""
    import jax
    from jax.experimental import topologies

    if topology.startswith("cpu:"):
        jax.config.update("jax_num_cpu_devices", int(topology.removeprefix("cpu:")))
        return [*jax.devices()]
    if topology.startswith("h100:"):
        _allow_gpu_callbacks()
        shape = "1x" + topology.removeprefix("h100:")
        found = topologies.get_topology_desc("", "cuda", target_config=_H100, topology=shape)
        return [*found.devices]
    # Else libtpu asks a metadata server, complains of names that are none, and refuses to be loaded
    # by two programs at once.
    os.environ.update(
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-16",
        TPU_WORKER_HOSTNAMES="localhost",
    )
    slices, _, name = topology.rpartition("*")
    more: dict[str, Any] = {"num_slices": int(slices)} if slices else {}
    return [*topologies.get_topology_desc(name, "tpu", **more).devices]


def _allow_gpu_callbacks() -> None:
    """Take the CPU's client for a host callback, as without a GPU JAX has none to register it with,
    and leave it out of the compilation. Private functions of JAX, for tests only."""
    import jax._src.compiler as compiler
    import jax._src.interpreters.mlir as mlir
    import jax._src.xla_bridge as bridge
    from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

    known, load = mlir.ModuleContext.get_backend, compiler.backend_compile_and_load

    def get_backend(self: Any, optional: bool = False) -> Any:
        try:
            return known(self, optional)
        except Exception:
            return bridge.get_backend("cpu")

    def compile_and_load(
        backend: Any,
        module: Any,
        devices: Any,
        options: Any,
        *rest: Any,
        **named: Any,
    ) -> Any:
        if isinstance(backend, _jax.CompileOnlyPyClient):
            return backend.compile(module, executable_devices=devices, compile_options=options)
        return load(backend, module, devices, options, *rest, **named)

    mlir.ModuleContext.get_backend = get_backend
    compiler.backend_compile_and_load = compile_and_load


class Counts(NamedTuple):
    """What is in a compiled program.

    Attributes:
        collectives: how many.
        operands: how many operands they have together.
        bytes: what they return.
        fusions: kernels that XLA has fused.
        copies: copies within the memory of the device.
        entered: branches that an iteration enters, those within other branches left out.
        sends: callbacks of the host; between slices also what they exchange.
        callbacks: callbacks of the host alone.
        first_only: of these, how many only the first device makes.
        code: bytes of code; 0 where the compiler does not say.
        temporary: bytes of memory that the program needs beside arguments and results.
    """

    collectives: int
    operands: int
    bytes: int
    fusions: int
    copies: int
    entered: int
    sends: int
    callbacks: int
    first_only: int
    code: int
    temporary: int


class _Instruction(NamedTuple):
    name: str
    kind: str
    operands: list[str]
    line: str


_INSTRUCTION = re.compile(r"\s(%\S+) = .*?(?:^|\s)([a-z][a-z0-9-]*)\((.*)")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply|\w+_computations?)=(\{[^}]*\}|%[\w.-]+)")


def count(compiled: Any) -> Counts:
    """Count the instructions of the compiled text."""
    computations = _computations(compiled.as_text())
    kinds: Counter[str] = Counter()
    operands = size = callbacks = first_only = entered = 0
    # Those within the branches of each conditional.
    branches = {
        (name, one.name): _reached(computations, one)
        for name, body in computations.items()
        for one in body
        if one.kind == "conditional"
    }
    for name, body in computations.items():
        for one in body:
            kind = one.kind.removesuffix("-start")
            kinds[kind] += 1
            if kind in _COLLECTIVES:
                operands += len(one.operands)
                size += _size(one)
            if kind == "conditional":
                entered += not any(name in within for within in branches.values())
            is_send = kind == "send" and "is_host_transfer=true" in one.line
            if "debug_callback" in one.line and (is_send or kind == "custom-call"):
                callbacks += 1
                first_only += "maximal device=0" in one.line or any(
                    name in within and _depends_on_device(computations[where], condition)
                    for (where, condition), within in branches.items()
                )
    memory = compiled.memory_analysis()
    return Counts(
        sum(kinds[kind] for kind in _COLLECTIVES),
        operands,
        size,
        kinds["fusion"],
        kinds["copy"],
        entered,
        kinds["send"] or callbacks,
        callbacks,
        first_only,
        memory.generated_code_size_in_bytes,
        memory.temp_size_in_bytes,
    )


def _size(one: _Instruction) -> int:
    """Bytes of what a collective returns, without those for what is none of `_BYTES`."""
    shapes = re.findall(r"\b(\w+)\[([\d,]*)\]", one.line.split(f" {one.kind}(")[0])
    if len(shapes) == 2 * len(one.operands):
        # The start of an asynchronous one returns what it was given, too.
        shapes = shapes[len(one.operands) :]
    return sum(
        _BYTES.get(kind, 0) * math.prod(int(n) for n in dims.split(",") if n)
        for kind, dims in shapes
    )


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """The instructions of each computation, by its name."""
    found: dict[str, list[_Instruction]] = {}
    body: list[_Instruction] = []
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY ")):
            body = found.setdefault(line.removeprefix("ENTRY ").split()[0], [])
        # After the type, which may be a tuple with spaces in it.
        elif (match := _INSTRUCTION.search(line)) is not None:
            operands = re.findall(r"%[\w.-]+", match[3].split(")")[0])
            body.append(_Instruction(match[1], match[2], operands, line))
    return found


def _reached(computations: dict[str, list[_Instruction]], start: _Instruction) -> set[str]:
    """The computations that an instruction calls, and those that these call."""
    reached: set[str] = set()
    queue = [start]
    while queue:
        for called in _CALLED.findall(queue.pop().line):
            new = {*re.findall(r"%[\w.-]+", called)} - reached
            reached |= new
            queue += [one for name in new for one in computations.get(name, [])]
    return reached


def _depends_on_device(body: list[_Instruction], conditional: str) -> bool:
    """Whether a condition is computed from the number of the device."""
    known = {one.name: one for one in body}
    queue, seen = [known[conditional].operands[0]], set[str]()
    while queue:
        one = known.get(queue.pop())
        if one is None or one.name in seen:
            continue
        seen.add(one.name)
        if one.kind == "partition-id":
            return True
        queue += one.operands
    return False
