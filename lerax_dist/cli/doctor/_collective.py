"""Check: whether the devices of all processes reach each other."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from lerax_dist.cli.doctor._check import (
    AbstractCheck,
    Context,
    Finding,
    Shown,
    group_by_value,
    named,
    one_line,
)

# Sums of which the median time is reported.
_REPEATS = 20


@final
@dataclass(frozen=True)
class Collective:
    """A sum over all devices in one process."""

    first: float = 0.0  # seconds of the first, compilation and connections included
    warm: float = 0.0  # seconds of one after that
    right: bool = False  # whether the sum was right
    error: str = ""  # why it failed
    late: bool = False  # whether it timed out


@final
class CollectiveCheck(AbstractCheck[Collective]):
    """A collective over all devices."""

    key = "collectives"
    fact = Collective

    def collect(self, context: Context) -> Collective | None:
        # All processes or none: a collective that one process stays away from is a deadlock.
        if not context.all_agree(not context.devices_failed, "whether all devices started"):
            return None
        try:
            return context.on_devices(sum_over_devices)
        except Exception as error:
            return Collective(error=one_line(error), late=context.devices_hang)

    def judge(self, facts: Sequence[Collective], hosts: Sequence[str]) -> Iterator[Finding]:
        for (error, right), indices in group_by_value([(x.error, x.right) for x in facts]).items():
            if right and not error:
                continue
            what = f"failed ({error})" if error else "gave a wrong sum"
            yield Finding(
                "problem",
                f"a collective over all devices {what} on {named(indices, hosts)}",
                "the processes reach the coordinator, but their devices do not reach each other: "
                "check that each host name resolves to an address that the others can reach, the "
                "network interface (NCCL_SOCKET_IFNAME), and firewalls",
            )

    def show(self, facts: Sequence[Collective]) -> Iterator[Shown]:
        if not facts[0].error:
            times = f"the first {_format(facts[0].first)}, then {_format(facts[0].warm)} each"
            yield "sum over all", times


def sum_over_devices() -> Collective:
    """Sum one number of every device over all devices, and time it. All processes must call it."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    start = time.perf_counter()
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("all",))
    numbers = np.arange(1, len(devices) + 1, dtype=np.int32)
    sharded = jax.make_array_from_callback(
        numbers.shape, NamedSharding(mesh, PartitionSpec("all")), lambda index: numbers[index]
    )
    add = jax.jit(jax.numpy.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    total = int(add(sharded).addressable_data(0))
    first = time.perf_counter() - start
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        add(sharded).block_until_ready()
        times.append(time.perf_counter() - start)
    return Collective(first, statistics.median(times), total == int(numbers.sum()))


def _format(seconds: float) -> str:
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length:
            return f"{seconds / length:.2f} {unit}"
    return f"{seconds * 1e6:.0f} µs"
