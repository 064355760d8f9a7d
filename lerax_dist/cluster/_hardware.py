"""The devices of a run, as far as this process can see them."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from lerax_dist.cluster._group import ProcessGroup


def see_devices(group: ProcessGroup) -> dict[str, Any]:
    """What the devices of the processes are, and how many each has.

    For all processes of a group at once, on the thread that computes: the first question to JAX
    starts the devices, and where JAX has joined processes each waits for the others then.

    Args:
        group: the processes.

    Returns:
        Fit for JSON: `platform` and `device_kind` of this process; `devices_per_process`, with
        None for a process that JAX has not joined; `device_count`, None if a part is.
        Empty if the devices cannot be started.
    """
    try:
        local, everywhere, joined = jax.local_devices(), jax.devices(), jax.process_count()
    except Exception:
        # Training will say so better than a log can, if it needs devices at all.
        return {}
    counts: list[int | None] = [None] * group.process_count
    if joined == group.process_count:
        indices = [device.process_index for device in everywhere]
        counts = [indices.count(index) for index in range(joined)]
    else:
        counts[group.process_index] = len(local)
    kind = {
        "platform": local[0].platform if local else None,
        "device_kind": local[0].device_kind if local else None,
    }
    return with_counts(kind, counts)


def place_by_devices() -> tuple[int, int]:
    """Index of this process and number of processes, as its devices have it. It starts them.

    libtpu knows the hosts of a pod whether or not JAX has joined them. `(0, 1)` if there are no
    devices to ask.
    """
    try:
        return jax.process_index(), jax.process_count()
    except Exception:
        return 0, 1


def with_counts(devices: Mapping[str, Any], counts: Sequence[int | None]) -> dict[str, Any]:
    """Facts on devices, with their numbers.

    Args:
        devices: see `see_devices`.
        counts: number of each process, None where it is not known.
    """
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    return {**devices, "devices_per_process": list(counts), "device_count": total}
