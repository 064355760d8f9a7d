"""Which of a host's devices a process takes."""

import dataclasses
from collections.abc import Mapping, Sequence

from lerax_dist.cluster._launch import Launch


def choose_local_devices(launch: Launch, environ: Mapping[str, str]) -> list[int] | None:
    """Which GPUs of its host a process of a launch takes; on CPUs it changes nothing.

    Args:
        launch: launch of this process.
        environ: its environment variables.

    Returns:
        One GPU each, `[local_index]`, when several processes share a host. None, meaning every
        device that the process sees, if it is alone on its host, if nothing says how many share
        it, if `CUDA_VISIBLE_DEVICES` (or its ROCm equals) has narrowed it to one device or none
        already, under SLURM to fewer than the step has on the host (`--gpus-per-task`), or if
        `JAX_LOCAL_DEVICE_IDS` is set, which JAX reads itself.
    """
    if launch.local_index is None or launch.local_count is None or launch.local_count == 1:
        return None
    if environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    on_node = environ.get("SLURM_GPUS_ON_NODE", "") if launch.launcher == "slurm" else ""
    shared = max(int(on_node), 2) if on_node.isdecimal() else 2
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if name in environ and len(environ[name].split(",")) < shared:
            return None
    return [launch.local_index]


def with_local_place(launch: Launch, hosts: Sequence[str]) -> Launch:
    """A launch with the place of its process on its host, if the launcher did not say it.

    Args:
        launch: launch of this process; its index is known.
        hosts: host name of every process.
    """
    if launch.process_index is None or None not in (launch.local_index, launch.local_count):
        return launch
    mine = hosts[launch.process_index]
    here = [index for index, host in enumerate(hosts) if host == mine]
    place = here.index(launch.process_index)
    return dataclasses.replace(launch, local_index=place, local_count=len(here))
