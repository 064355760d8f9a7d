"""Joining the launch."""

import contextlib
import dataclasses
import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from lerax_dist.cluster._address import check_port, coordinator_host, reserved_port
from lerax_dist.cluster._current import membership
from lerax_dist.cluster._devices import choose_local_devices, with_local_place
from lerax_dist.cluster._group import ProcessGroup, check_timeout
from lerax_dist.cluster._launch import (
    MPI_LAUNCHERS,
    Launch,
    check_address,
    check_place,
    check_sources,
    detect,
)
from lerax_dist.cluster._meeting import meeting_point
from lerax_dist.cluster._mpi_group import MPIGroup
from lerax_dist.cluster._store import devices_have_started
from lerax_dist.cluster.liveness import rendezvous, start_liveness

_log = logging.getLogger("lerax_dist")

# JAX waits 100 s for a sign of life. All others stand still meanwhile, and what is gone for a
# minute does not come back: a switch that starts again is quicker, and Python cannot hold the signs
# up, as a thread of C++ sends them.
_HEARTBEAT = 60
# JAX's own: who is done first waits while another writes a last checkpoint or uploads its logs.
_SHUTDOWN = 300


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    local_device_ids: int | Sequence[int] | None = None,
    timeout: float = 300.0,
    **jax_options: Any,
) -> ProcessGroup:
    """Join the processes that were launched together, in place of `jax.distributed.initialize`.

    Call it once in each process, at the top of the script, before any JAX computation. Without
    arguments it finds out by itself: the variables `LERAX_DIST_COORDINATOR_ADDRESS`,
    `LERAX_DIST_NUM_PROCESSES` and `LERAX_DIST_PROCESS_ID`, Open MPI, MPICH and Intel MPI (through
    mpi4py), SLURM, TPU pods and Kubernetes (through JAX), torchrun. One process is a launch too; it
    starts no service. A second call returns the group of the first, also where
    `jax.distributed.initialize` was the first. One line at level INFO of the logger "lerax_dist"
    says what was found.

    From then on a thread watches over the others (about one look a second, no more than 500 a
    second by all together). Who dies, hangs or cannot be reached is named on standard error, with
    its host, after 0.3 times `heartbeat_timeout_seconds`; JAX then ends every process (SIGABRT)
    within that limit and 6 seconds. Where the system itself says that process 0 is gone it takes 3
    seconds. A program that ends by an exception does not wait at JAX's shutdown barrier: the others
    hear of it within a second or two, have 5 seconds to end by themselves, and are ended with
    status 1. A program that is done waits for the others, so that nobody is killed by its leaving,
    at most `shutdown_timeout_seconds`. The exit status of a program that ends is its own. With
    `JAX_ENABLE_RECOVERABILITY=1` the failure of another process than 0 is only told, as in JAX.

    Args:
        coordinator_address: "host:port" where process 0 listens and the others find it. Give all
            of the first three arguments or none.
        num_processes: number of processes.
        process_id: index of this process.
        local_device_ids: GPUs of this host that this process takes. By default, under SLURM, an
            MPI launcher or torchrun with several processes on a host, the one of its local index,
            or all that it sees if the launcher shows it GPUs of its own only
            (`CUDA_VISIBLE_DEVICES`); alone on its host all.
        timeout: longest wait for the other processes in seconds. Those that do not arrive are
            named, but where only JAX knows the others (Kubernetes, TPU pods on Compute Engine):
            there it ends the process (SIGABRT) when the time has passed. A warning is logged long
            before. The default leaves time for a node that has to fetch a container.
        **jax_options: further arguments of `jax.distributed.initialize`. Two have defaults of
            their own: `heartbeat_timeout_seconds=60`, as all others stand still while one is gone,
            and what is gone for a minute does not come back (JAX: 100);
            `shutdown_timeout_seconds=300`, time for a last checkpoint of another process.

    Returns:
        The group of all processes: a `JaxGroup`, or a `SoloGroup` of one.

    Raises:
        ValueError: arguments or variables are incomplete, malformed or contradict the launcher.
        RuntimeError: JAX has started its devices already; mpi4py is missing or belongs to another
            MPI than the launcher; JAX cannot find the other processes.
        TimeoutError: names the processes that did not arrive in time.
        OSError: process 0 cannot listen on the port given.

    Example:
        ```python
        group = initialize(heartbeat_timeout_seconds=30)
        if group.is_writer:
            print(f"{group.process_count} processes, started by {group.launcher}")
        ```
    """
    check_timeout(timeout)
    joined = membership.group()
    if joined is not None:
        return joined
    launch = detect(os.environ)
    if (coordinator_address, num_processes, process_id) != (None, None, None):
        launch = _explicit(coordinator_address, num_processes, process_id, launch)
    options = {
        "initialization_timeout": math.ceil(timeout),
        "heartbeat_timeout_seconds": _HEARTBEAT,
        "shutdown_timeout_seconds": _SHUTDOWN,
        **jax_options,
    }
    if local_device_ids is not None:
        options["local_device_ids"] = local_device_ids
    if launch.process_count != 1:
        with _warning_of_waits(launch, timeout):
            launch = _join(launch, timeout, options)
    group = membership.join(launch)
    if group.process_count > 1:
        start_liveness(options["heartbeat_timeout_seconds"], options["shutdown_timeout_seconds"])
    _log.info(
        "Process %d of %d on %s (%s: %s)%s.",
        *(group.process_index, group.process_count, group.hostname, launch.launcher, launch.why),
        f", coordinator {launch.coordinator}" if launch.coordinator else "",
    )
    return group


def _join(launch: Launch, timeout: float, options: dict[str, Any]) -> Launch:
    """Join JAX's service. The launch is returned with the address where that is known."""
    if launch.launcher in MPI_LAUNCHERS:
        return _join_by_mpi(launch, timeout, options)
    if devices_have_started():
        raise _too_late([launch.process_index])
    if launch.launcher in ("explicit", "torchrun"):
        _join_by_address(launch, timeout, options)
    else:
        _join_by_jax(launch, timeout, options)
    return launch


def _meet(launch: Launch, timeout: float, options: dict[str, Any]) -> None:
    """Wait until all are there, where a place is known: JAX ends who waits without naming anyone.

    Raises:
        TimeoutError: names those who did not come.
    """
    address = meeting_point(launch, os.environ)
    if address is not None and "coordinator_bind_address" not in options:
        rendezvous(launch.process_index or 0, launch.process_count or 1, address, timeout)


def _explicit(address: str | None, count: int | None, index: int | None, launch: Launch) -> Launch:
    """The launch that arguments describe, checked against what the launcher says."""
    given = {"coordinator_address": address, "num_processes": count, "process_id": index}
    shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    if address is None or count is None or index is None:
        missing = "`, `".join(name for name, value in given.items() if value is None)
        raise ValueError(
            f"`{missing}` must be given too, got {shown} only. Pass all of {', '.join(given)}, or "
            "none to find the launch from the environment."
        )
    check_address("coordinator_address", address)
    check_place("process_id", index, "num_processes", count)
    if launch.several and (index, count) != (launch.process_index, launch.process_count):
        raise ValueError(
            f"`process_id` and `num_processes` must be those of the launcher, got {index} of "
            f"{count}, but {launch.launcher} says {launch.process_index} of "
            f"{launch.process_count} ({launch.why}). Leave the arguments out, or unset these "
            "variables if they were inherited from elsewhere."
        )
    explicit = Launch("explicit", index, count, None, None, address, shown)
    check_sources(explicit, os.environ)
    return explicit


def _join_by_mpi(launch: Launch, timeout: float, options: dict[str, Any]) -> Launch:
    """Agree on an address through MPI, then join there. The launch with the address is returned."""
    mpi = MPIGroup(timeout=timeout)
    # All processes hear of one that cannot join; else they would wait for it until they are ended.
    started = mpi.gather(devices_have_started(), timeout=timeout, what="who can join")
    with contextlib.ExitStack() as stack:
        plan: dict[str, Any] = {}
        if started is not None:
            plan["address"] = os.environ.get("JAX_COORDINATOR_ADDRESS")
            if not plan["address"]:
                port = os.environ.get("JAX_COORDINATOR_PORT")
                port = port or stack.enter_context(reserved_port())
                plan["address"] = f"{coordinator_host(mpi.hosts, launch)}:{port}"
            plan["started"] = [index for index, early in enumerate(started) if early]
        plan = mpi.broadcast(plan, timeout=timeout, what="the coordinator's address")
        if plan["started"]:
            raise _too_late(plan["started"])
        launch = dataclasses.replace(launch, coordinator=plan["address"])
        launch = with_local_place(launch, mpi.hosts)
        options.setdefault("local_device_ids", choose_local_devices(launch, os.environ))
        _jax_initialize(launch, options)
    return launch


def _join_by_address(launch: Launch, timeout: float, options: dict[str, Any]) -> None:
    if launch.coordinator is None:
        raise ValueError(
            f"`coordinator_address` must be given under {launch.launcher} ({launch.why}), where no "
            "variable names a port that is free. Pass coordinator_address, num_processes and "
            "process_id."
        )
    elsewhere = options.get("coordinator_bind_address", os.getenv("JAX_COORDINATOR_BIND_ADDRESS"))
    if launch.process_index == 0 and elsewhere is None:
        check_port("coordinator_address", launch.coordinator)
    _meet(launch, timeout, options)
    options.setdefault("local_device_ids", choose_local_devices(launch, os.environ))
    _jax_initialize(launch, options)


def _join_by_jax(launch: Launch, timeout: float, options: dict[str, Any]) -> None:
    """Leave it to JAX, which knows SLURM, TPU pods and Kubernetes."""
    known = launch.launcher == "slurm" and launch.local_count is not None
    if known and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        # No list but an empty one means all. JAX by itself takes the one of SLURM_LOCALID, also for
        # a process alone on its node, and where SLURM shows each its own GPU, which is number 0.
        options.setdefault("local_device_ids", choose_local_devices(launch, os.environ) or [])
    _meet(launch, timeout, options)
    try:
        jax.distributed.initialize(**options)
    except Exception as error:
        raise RuntimeError(
            f"JAX cannot join the launch ({launch.launcher}: {launch.why}): {error} Pass "
            "`coordinator_address`, `num_processes` and `process_id` to say where the others are."
        ) from error


def _jax_initialize(launch: Launch, options: dict[str, Any]) -> None:
    jax.distributed.initialize(
        **{
            "coordinator_address": launch.coordinator,
            "num_processes": launch.process_count,
            "process_id": launch.process_index,
            # Else JAX fills in the devices from SLURM's variables where it sees some.
            "cluster_detection_method": "deactivate",
            **options,
        }
    )


@contextlib.contextmanager
def _warning_of_waits(launch: Launch, timeout: float) -> Iterator[None]:
    """Say that others are missing while there is time: JAX ends the process without a word."""
    after = min(30.0, timeout / 2)
    timer = threading.Timer(
        after,
        _log.warning,
        (
            "Process %s of %s (%s) has waited %.0f s for the others to join%s; the wait ends after "
            "%g s. Was every process started, and can it reach that address?",
            *(launch.process_index, launch.process_count, launch.launcher, after),
            *(f" at {launch.coordinator}" if launch.coordinator else "", timeout),
        ),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _too_late(indices: Sequence[int | None]) -> RuntimeError:
    who = ", ".join("this one" if index is None else str(index) for index in indices)
    return RuntimeError(
        f"`initialize()` must come before JAX starts its devices, but on process {who} it had "
        "started them. Call it at the top of the script, before any JAX computation, "
        "`jax.devices()` or `jax.process_index()`."
    )
