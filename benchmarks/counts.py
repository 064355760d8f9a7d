"""Collectives, callbacks and bytes of a logged iteration, read off the compiled program.

XLA folds many collectives into one instruction, but each operand still costs a rendezvous of its
own: so operands are counted.

    XLA_FLAGS=--xla_force_host_platform_device_count=256 python -m benchmarks.counts
"""

import argparse
import re
import tempfile

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import lerax_dist as ld
from benchmarks import _programs
from benchmarks._result import Result, emit, progress

_BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "s64": 8}
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--metrics", type=int, nargs="+", default=[4, 64])
    args = parser.parse_args()
    most = max(args.devices)
    if most > jax.device_count():
        # A mesh of those that there are would be counted under a wrong number.
        parser.error(
            f"`--devices` {most} needs as many, and there are {jax.device_count()}: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={most}"
        )
    for devices in args.devices:
        for metrics in args.metrics:
            # Rows that are sent together change the number of transfers, and nothing else here.
            for rows in (1, 10) if metrics == 64 and devices <= 8 else (1,):
                with tempfile.TemporaryDirectory() as folder:
                    backend = ld.NoOpBackend()
                    logger = ld.LoggingCallback(
                        backend, "run", log_dir=folder, rows_per_transfer=rows
                    )
                    with logger:
                        _count(logger, rows, devices, metrics)


def _count(logger: ld.LoggingCallback, rows: int, devices: int, metrics: int) -> None:
    text = _compiled(logger, devices, metrics)
    operands, size = _collectives(text)
    callbacks = len(re.findall(r'custom_call_target="[^"]*callback[^"]*"', text))
    case = {"devices": devices, "metrics": metrics}
    name = f"LoggingCallback, {rows} a transfer"
    emit(Result("counts", case, name, "collective operands", "in the program", operands))
    emit(Result("counts", case, name, "reduced over devices", "bytes a transfer", size))
    emit(Result("counts", case, name, "host callbacks", "in the program", callbacks))
    progress(f"{case}, {rows} rows: {operands} operands, {size} bytes, {callbacks} callbacks")


def _compiled(logger: ld.LoggingCallback, devices: int, metrics: int) -> str:
    mesh = Mesh(np.array(jax.devices()[:devices]), ("d",), axis_types=(AxisType.Auto,))
    train = _programs.scan(logger, 20, metrics)
    mapped = jax.shard_map(
        train, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=False
    )
    x = jax.ShapeDtypeStruct((devices, 96, 96), np.float32)
    return jax.jit(mapped).lower(x, jax.ShapeDtypeStruct((), np.int32)).compile().as_text() or ""


def _collectives(text: str) -> tuple[int, int]:
    """Operands of all collectives of a program, and their bytes."""
    shapes = [shape for line in _COLLECTIVE.findall(text) for shape in _SHAPE.findall(line[0])]
    sizes = [
        _BYTES[kind] * int(np.prod([int(n) for n in dims.split(",") if n], dtype=np.int64))
        for kind, dims in shapes
    ]
    return len(sizes), sum(sizes)


if __name__ == "__main__":
    main()
