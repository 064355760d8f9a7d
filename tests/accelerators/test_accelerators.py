"""What XLA's compilers for TPU and GPU make of a step that is logged: the same on every machine.

Each environment compiles all programs in one process; the tests look into what it has printed. A
program without a logger stands beside each that has one: what counts is the difference.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.accelerators.environment import ENVIRONMENTS, python_of
from tests.newest.environment import ROOT

# The first test of an environment installs it and compiles all its programs.
pytestmark = pytest.mark.timeout(900)

LOGGED = ("callback", "interval", "buffer", "delay", "axis", "video")
CALLBACKS = ["data:callback", "plain:callback"]
JOINING = ["data:none", "plain:none", *CALLBACKS]
WAYS = [f"{body}:{way}" for body in ("data", "plain") for way in ("interval", "buffer", "delay")]
ALONE = [f"scan:{way}:64" for way in ("none", "stack", "callback")]
KERNELS = [*ALONE, "scan:reduce:64", "scan:reduce:64:max", "scan:buffer:64", "scan:delay:64"]
MANY = ["scan:stack:1024", "scan:callback:1024"]
DEPENDING = [
    *("data:callback:21:max", "data:callback:21:norm", "data:delay:21:norm"),
    *("plain:callback:21:max", "plain:delay:21:norm"),
    *("model:none", "model:callback", "model:axis"),
]
EXTRAS = [
    *DEPENDING,
    *("data:delay:21:max", "data:interval:21:vma", "data:video"),
    *(f"data:{way}:21:{extra}" for extra in ("bf16", "vma") for way in ("none", "callback")),
    *(f"{body}:{way}:21:seeds" for body in ("data", "plain") for way in ("none", "callback")),
]
# Devices: 4, 16, 256, 2 x 16, 64, 1,024; GPUs on 2, 1, 8, 3, 3 and 12 hosts: 8, 8, 64, 12, 24, 96.
PROGRAMS = {
    "v5e:2x2": [*KERNELS, *MANY, *JOINING, *EXTRAS],
    "v5e:4x4": [*JOINING, "data:interval", "data:buffer", "plain:interval", "plain:buffer"],
    "v5e:16x16": [*JOINING, *WAYS, *ALONE, "scan:reduce:64"],
    "2*v5e:4x4": [*JOINING, *ALONE],
    "v5p:4x4x4": [*JOINING, *ALONE],
    "v4:8x8x8": [*JOINING, *WAYS],
    "h100:2x4": [*KERNELS, *MANY, *JOINING, *DEPENDING],
    "h100:1x8": ["scan:callback:64", *CALLBACKS],
    "h100:8x8": [*CALLBACKS, *WAYS],
    "h100:3x4": CALLBACKS,
    "h100:3x8": CALLBACKS,
    "h100:12x8": CALLBACKS,
}
# To save time, of the newest jax only these.
NEWEST = {
    "v5e:2x2": [*KERNELS, *JOINING, *EXTRAS],
    "v5e:16x16": [*JOINING, *WAYS, *ALONE, "scan:reduce:64"],
    "2*v5e:4x4": JOINING,
    "h100:2x4": [*ALONE, "scan:reduce:64", *JOINING],
    "h100:1x8": ["scan:callback:64", *CALLBACKS],
}


class Program(NamedTuple):
    topology: str
    body: str
    way: str
    metrics: str
    extras: str


Counts = dict[str, int]
Found = dict[Program, Counts]


def program_of(topology: str, name: str) -> Program:
    body, way, metrics, extras = [*name.split(":"), "", "", ""][:4]
    return Program(topology, body, way, metrics or "21", extras)


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def found(request: pytest.FixtureRequest) -> Found:
    programs = PROGRAMS if request.param == "oldest" else NEWEST
    arguments = [part for topology, names in programs.items() for part in (topology, *names)]
    done = subprocess.run(
        [python_of(request.param), "-m", "tests.accelerators.programs", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    counts: Found = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            counts_of_one = json.loads(line)
            topology, name = counts_of_one.pop("topology"), counts_of_one.pop("program")
            counts[program_of(topology, name)] = counts_of_one
    assert len(counts) == sum(map(len, programs.values()))
    return counts


def added(found: Found, program: Program, base: str = "none") -> Counts:
    """What a program has more than the same one with nothing logged, or logged as `base`."""
    # Metrics that nobody logs change nothing. Nor does the number of GPUs.
    extras = "" if program.extras in ("max", "norm") else program.extras
    other = program._replace(way=base, extras=extras)
    before = found.get(other) or found[other._replace(topology="h100:2x4")]
    return {what: n - before[what] for what, n in found[program].items() if what != "seconds"}


def logged(found: Found, *bodies: str, extras: tuple[str, ...] = ("",)) -> Iterator[Program]:
    ours = (one for one in found if one.way in LOGGED and one.metrics != "1024")
    return (one for one in ours if one.body in bodies and one.extras in extras)


def is_gpu(program: Program) -> bool:
    return program.topology.startswith("h100")


def test_beside_an_all_reduce_of_gradients_the_logger_has_none_of_its_own(found):
    """For any number of devices, with extremes and episode statistics, in `shard_map` and `jit`."""
    seen = set()
    for program in logged(found, "data", "plain", extras=("", "max", "vma", "seeds")):
        assert added(found, program)["collectives"] == 0, program
        seen.add((program.body, program.way, program.extras))
    for body in ("data", "plain"):
        assert {(body, way, "") for way in ("callback", "interval", "buffer", "delay")} <= seen
    assert {("data", "callback", extra) for extra in ("max", "vma", "seeds")} <= seen


def test_what_cannot_join_is_one_collective(found):
    seen = 0
    for topology in ("v5e:2x2", "h100:2x4"):
        for name, collectives in {
            "data:callback:21:norm": 1,
            "data:delay:21:norm": 0,
            "plain:delay:21:norm": 0,
            "data:callback:21:bf16": 1,
            # All devices of a mesh of two axes; and only those that gradients are reduced over.
            "model:callback": 1,
            "model:axis": 0,
            "plain:callback:21:max": 0,
        }.items():
            program = program_of(topology, name)
            if program in found:
                assert added(found, program)["collectives"] == collectives, program
                seen += 1
    assert seen >= 7


def test_without_another_there_is_one_collective_of_one_vector(found):
    for program in found:
        if program.body == "scan" and program.way != "none":
            # Between slices even a stack may take two.
            stack = program._replace(way="stack", extras="")
            base = found.get(stack) or found[stack._replace(topology="h100:2x4")]
            for what in ("collectives", "operands"):
                assert 1 <= found[program][what] <= base[what], program
                assert base[what] == 1 or "*" in program.topology


def test_the_first_device_alone_calls_the_host_and_once(found):
    for program, counts in found.items():
        calls = 0 if program.way not in LOGGED else 2 if program.way == "video" else 1
        assert counts["callbacks"] == counts["first_only"] == calls, program
        if program.body != "scan":
            # Slices exchange gradients through their hosts, and nothing more with the logger.
            assert added(found, program)["sends"] == calls, program
        # A GPU waits for the condition of each of them.
        assert counts["entered"] <= calls, program


def test_kernels_and_code_of_64_metrics(found):
    for topology in ("v5e:2x2", "v5e:16x16", "h100:2x4"):
        more = added(found, program_of(topology, "scan:callback:64"))
        assert more["fusions"] <= (9 if topology.startswith("h100") else 14)
        assert more["code"] <= 200_000
        reduced = added(found, program_of(topology, "scan:reduce:64"), "stack")
        assert reduced["fusions"] <= 2
        assert reduced["collectives"] == 0
    for program in logged(found, "scan"):
        # Two slices take three kernels more to exchange a sum; links in three dimensions more code.
        limit = 20 if program.way == "buffer" else 14
        assert added(found, program)["fusions"] <= limit, program
        if "v5p" in program.topology:
            assert added(found, program)["code"] <= 260_000, program


def test_1024_metrics_have_the_kernels_of_stack(found):
    """XLA takes the stack of so many apart itself; the logger adds what it adds to 64."""
    for topology in ("v5e:2x2", "h100:2x4"):
        few, many = (program_of(topology, f"scan:callback:{n}") for n in (64, 1024))
        if many not in found:
            continue
        slack = 0 if is_gpu(many) else 3
        assert (
            added(found, many, "stack")["fusions"] <= added(found, few, "stack")["fusions"] + slack
        )


def test_temporary_memory(found):
    for program in logged(found, "scan", "data", "plain"):
        more = added(found, program)["temporary"]
        # A TPU keeps a place for what it sends to the host, a buffer has 64 KiB on the device.
        kept = program.way in ("buffer", "delay")
        limit = (160_000 if kept else 16_000) if is_gpu(program) else 3_500_000
        assert more <= limit, program


def test_slots_take_24_bytes_a_device(found):
    """Twice that where the devices are no power of two; see `docs/how.md`."""
    devices = {"h100:2x4": 8, "v5e:4x4": 16, "v5e:16x16": 256, "v4:8x8x8": 1024}
    devices |= {"h100:8x8": 64, "h100:3x4": 12, "h100:3x8": 24, "h100:12x8": 96}
    seen = 0
    for topology, count in devices.items():
        program = program_of(topology, "data:callback")
        if program in found:
            # 21 metrics, 4 limbs of the step, and 7 sums of episode statistics.
            size = 24 * count * (2 if count % 3 == 0 else 1) + 4 * (21 + 4 + 7)
            assert added(found, program)["bytes"] == size, program
            seen += 1
    assert seen >= 2


def test_nothing_depends_on_the_number_of_hosts(found):
    """Eight GPUs on one host and on two."""
    compared = 0
    for program in found:
        if program.topology == "h100:1x8":
            compared += 1
            other = found[program._replace(topology="h100:2x4")]
            assert {**found[program], "seconds": 0} == {**other, "seconds": 0}, program
    assert compared >= 3
