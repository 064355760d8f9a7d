"""Which devices a process takes, and what the devices of a run are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from lerax_dist.cluster._current import membership
from lerax_dist.cluster._group import ProcessGroup
from lerax_dist.cluster.launchers import Launch

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def choose_local_devices(launch: Launch, environ: Mapping[str, str]) -> list[int] | None:
    """Which GPUs of its host a process of a launch takes; on CPUs it changes nothing.

    One GPU each, `[local_index]`, when several processes share a host. `None`, meaning every device
    that the process sees, if it is alone on its host, if nothing says how many share it, if
    `CUDA_VISIBLE_DEVICES` (or its ROCm equals) shows it one device or none, or fewer than the
    launch has on this host (`srun --gpus-per-task`), or if `JAX_LOCAL_DEVICE_IDS` is set, which JAX
    reads itself.
    """
    if launch.local_index is None or launch.local_count is None or launch.local_count == 1:
        return None
    if environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    shared = max(launch.gpus_on_host or 0, 2)
    for name in _VISIBLE:
        if name in environ and len(environ[name].split(",")) < shared:
            return None
    return [launch.local_index]


def with_local_index(launch: Launch, hosts: Sequence[str]) -> Launch:
    """The launch with the local index and count that the host names of all processes show.

    Values that the launcher has set are kept.
    """
    if launch.process_index is None or None not in (launch.local_index, launch.local_count):
        return launch
    here = [i for i, host in enumerate(hosts) if host == hosts[launch.process_index]]
    local_index = here.index(launch.process_index)
    return dataclasses.replace(launch, local_index=local_index, local_count=len(here))


def describe_devices(group: ProcessGroup) -> dict[str, Any]:
    """What the devices of the processes are, and how many each process has.

    For all processes of a group at once, on the thread that computes: the first question to JAX
    starts the devices, and where JAX has joined processes each waits for the others then.

    JSON values: `platform` and `device_kind` of this process; `devices_per_process`, with None for
    a process that JAX has not joined; `device_count`, None if a part is. Empty if the devices
    cannot be started, or are those of a process that this one forked from.
    """
    if membership.is_fork:
        return {}
    try:
        local, everywhere, joined = jax.local_devices(), jax.devices(), jax.process_count()
    except Exception:
        # The training raises a better error than a logger can, if it needs devices at all.
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


def with_counts(devices: Mapping[str, Any], counts: Sequence[int | None]) -> dict[str, Any]:
    """The facts of `describe_devices` with other numbers of devices, None where one is unknown."""
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    return {**devices, "devices_per_process": list(counts), "device_count": total}
