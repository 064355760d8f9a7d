"""What XLA's compilers for TPU and GPU make of a logged step, and how long they take.

No chip is needed: the compilers run here, in the environments of `tests/accelerators`, which are
installed on first use (2 GB each).

    python -m benchmarks.accelerators --environments oldest
"""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks._result import Result, emit, progress
from tests.accelerators.environment import ENVIRONMENTS, python_of
from tests.newest.environment import ROOT

KERNELS = [f"scan:{way}:64" for way in ("none", "stack", "each", "reduce", "callback", "delay")]
JOINING = [
    f"{body}:{way}"
    for body in ("data", "plain")
    for way in ("none", "callback", "interval", "buffer", "delay")
]
SLOTS = ["data:none", "data:callback"]
TIMES = [
    f"scan:{way}:{metrics}"
    for metrics in (4, 64, 256, 1024)
    for way in ("stack", "each", "reduce", "callback")
]
COMPILED = {
    "v5e:4x4": [*KERNELS, *JOINING],
    "h100:2x4": [*KERNELS, *JOINING],
    "v5e:16x16": JOINING,
    "h100:8x8": JOINING,
    "h100:12x8": SLOTS,
    "v4:8x8x8": SLOTS,
}
# Simulated devices have to be asked for first.
TIMED = {"cpu:4": TIMES, "v5e:4x4": TIMES, "h100:2x4": TIMES}
COUNTS = ("collectives", "operands", "fusions", "copies", "entered", "callbacks")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", nargs="+", default=ENVIRONMENTS, choices=ENVIRONMENTS)
    parser.add_argument("--without-times", action="store_true")
    args = parser.parse_args()
    for environment in args.environments:
        python = python_of(environment)
        versions = "from importlib.metadata import version as v; print(v('jax'), v('libtpu'))"
        command = [python, "-c", versions]
        jax, libtpu = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.split()
        case: dict[str, Any] = {"jax": jax, "libtpu": libtpu}
        for found in _compile(python, COMPILED):
            body, way, metrics = [*found["program"].split(":"), "21"][:3]
            program = case | {"topology": found["topology"], "loop": body, "metrics": metrics}
            for quantity in COUNTS:
                emit(Result("compiled", program, way, quantity, "", found[quantity]))
            for quantity, source in {"reduced": "bytes", "code": "code"}.items():
                emit(Result("compiled", program, way, quantity, "bytes", found[source]))
            progress(f"{found['topology']} {found['program']}: {found['fusions']} fusions")
        for found in _compile(python, {} if args.without_times else TIMED):
            _, way, metrics = found["program"].split(":")
            program = case | {"topology": found["topology"], "metrics": metrics}
            for stage, seconds in zip(("trace", "lower", "compile"), found["seconds"], strict=True):
                emit(Result("compile time", program, way, stage, "s", seconds))
            progress(f"{found['topology']} {found['program']}: {sum(found['seconds']):.1f} s")


def _compile(python: str, programs: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    arguments = [part for topology, names in programs.items() for part in (topology, *names)]
    command = [python, "-m", "tests.accelerators.programs", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield from (json.loads(line) for line in process.stdout if line.startswith("{"))
    if code := process.wait():
        raise SystemExit(f"{' '.join(command)} ended with status {code}")


if __name__ == "__main__":
    main()
