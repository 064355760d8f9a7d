"""Joining the processes of a launch: `initialize`."""

import contextlib
import dataclasses
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import jax

from lerax_dist.cluster._child import check_no_child
from lerax_dist.cluster._current import membership
from lerax_dist.cluster._devices import choose_local_devices, with_local_index
from lerax_dist.cluster._group import ProcessGroup, check_timeout
from lerax_dist.cluster._mpi_group import MPIGroup
from lerax_dist.cluster._rendezvous import (
    coordinator_host,
    rendezvous,
    rendezvous_address,
    reserved_port,
)
from lerax_dist.cluster._store import devices_have_started, joined_address
from lerax_dist.cluster._watchdog import late_text, wait_notice, watchdog
from lerax_dist.cluster.launchers import (
    LAUNCH_ID,
    Launch,
    check_address,
    check_index,
    check_sources,
    detect,
    show_variables,
)
from lerax_dist.cluster.liveness import start_liveness

_log = logging.getLogger("lerax_dist")

# In seconds after the timeout. JAX ends the process 5 s after it, without a message.
_GRACE = 2.0
# In seconds; JAX's default is 100. All other processes are blocked meanwhile, and a process without
# a heartbeat for a minute is lost: a restarting switch is back sooner, and Python cannot delay
# heartbeats, as a thread of C++ sends them.
_HEARTBEAT_TIMEOUT = 60
# By which gRPC finds a proxy; only in lower case.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
# In seconds, as JAX's default: another process may write a last checkpoint or upload its logs.
_SHUTDOWN_TIMEOUT = 300


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
    arguments it detects the launch: the variables `LERAX_DIST_COORDINATOR_ADDRESS`,
    `LERAX_DIST_NUM_PROCESSES` and `LERAX_DIST_PROCESS_ID`; Open MPI, MPICH, Intel MPI and MVAPICH
    (through mpi4py); SLURM; TPU pods and Kubernetes (through JAX); torchrun; Flux, PBS with Cray
    PALS and `jsrun` (at `JAX_COORDINATOR_ADDRESS`, else through mpi4py). A single process is a
    launch, too; it starts no service. A second call returns the group of the first call, also after
    `jax.distributed.initialize`. A message at level INFO of the logger "lerax_dist" names what was
    detected.

    A process of another launch that arrives at the same address is refused. Launches are told apart
    by their job and step where the launcher names these, and by `LERAX_DIST_LAUNCH_ID`, which you
    may set on all processes, to another value for each launch.

    From then on a thread sends a heartbeat every second and checks those of the other processes (at
    most 500 checks a second over all processes). A process that has sent none for 0.3 times
    `heartbeat_timeout_seconds` is unresponsive: it died, is stuck or cannot be reached. Each other
    process names it and its host on standard error, and reports it if its heartbeats resume.
    If they do not, JAX ends every process (SIGABRT) within `heartbeat_timeout_seconds` plus 6
    seconds. If process 0's host refuses connections, it takes 3 seconds. A program that ends by an
    exception does not wait at JAX's shutdown barrier: the other processes are notified within two
    seconds, have 5 seconds to end by themselves, and are then ended with status 1. A program that
    is done waits for the others, at most `shutdown_timeout_seconds`, because JAX would abort them.
    The exit status of a program is never changed. With `JAX_ENABLE_RECOVERABILITY=1` the
    failure of a process other than 0 is only reported, as in JAX.

    Args:
        coordinator_address: "host:port" where process 0 listens and the others connect. Pass all
            of the first three arguments or none.
        num_processes: number of processes.
        process_id: index of this process.
        local_device_ids: GPUs of this host that this process takes. By default a process that is
            alone on its host takes all; of several on a host each takes the GPU of its local index,
            or all that it sees if the launcher shows it only its own (`CUDA_VISIBLE_DEVICES`).
        timeout: longest wait for the other processes in seconds. The error names those that did
            not arrive. In `MPI_Init`, and where only JAX knows the others (Kubernetes, TPU pods on
            Compute Engine), nothing can raise: the process says so and ends with status 1. A
            warning is logged long before. The default leaves time for a host that has to download
            a container.
        **jax_options: further arguments of `jax.distributed.initialize`. Two have other defaults:
            `heartbeat_timeout_seconds=60`, because all processes are blocked while one is lost
            (JAX: 100); `shutdown_timeout_seconds=300`, time for a last checkpoint of another
            process.

    Returns:
        The group of all processes: a `JaxGroup`, or a `SoloGroup` of one.

    Raises:
        ValueError: if arguments or variables are incomplete, malformed or contradict the launcher.
        RuntimeError: if JAX has started its devices already; if mpi4py is missing or belongs to
            another MPI than the launcher; if JAX cannot find the other processes; if process 0
            belongs to another launch; if this is a child of a process that has joined.
        TimeoutError: if processes did not arrive in time; names them.
        OSError: if process 0 cannot listen on the given port.

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
        "heartbeat_timeout_seconds": _HEARTBEAT_TIMEOUT,
        "shutdown_timeout_seconds": _SHUTDOWN_TIMEOUT,
        **jax_options,
    }
    if local_device_ids is not None:
        options["local_device_ids"] = local_device_ids
    if launch.process_count != 1:
        check_no_child(launch)
        with _warning_of_waits(launch, timeout):
            launch = _join(launch, timeout, options)
    group = membership.join(launch)
    if group.process_count > 1:
        start_liveness(options["heartbeat_timeout_seconds"], options["shutdown_timeout_seconds"])
    address = joined_address()
    _log.info(
        "Process %d of %d on %s (%s: %s)%s.",
        *(group.process_index, group.process_count, group.hostname),
        *(launch.launcher, launch.evidence, f", coordinator {address}" if address else ""),
    )
    return group


def _join(launch: Launch, timeout: float, options: dict[str, Any]) -> Launch:
    """Join JAX's service. Returns the launch with what joining has found out."""
    incomplete = launch.coordinator is None or launch.process_count is None
    if launch.join == "mpi" or (incomplete and launch.uses_mpi):
        return _join_by_mpi(launch, timeout, options)
    if devices_have_started():
        raise _too_late([launch.process_index])
    if launch.join != "jax" and incomplete:
        mpi = ", or install mpi4py for the MPI library of this system"
        raise ValueError(
            f"`coordinator_address` is missing: no variable of the launcher of {launch} names "
            "a host and a free port of process 0. Set JAX_COORDINATOR_ADDRESS=HOST:PORT to the "
            "same value on all processes, or pass coordinator_address, num_processes and "
            f"process_id{mpi if launch.join == 'address or mpi' else ''}."
        )
    address = rendezvous_address(launch, os.environ)
    if address is not None and "coordinator_bind_address" not in options:
        # JAX would end the process without naming who is missing.
        place = (launch.process_index or 0, launch.process_count or 1)
        rendezvous(*place, address, timeout, launch.identity)
    _join_service(launch, timeout, options)
    return launch


def _explicit(address: str | None, count: int | None, index: int | None, launch: Launch) -> Launch:
    """The launch that arguments describe, checked against what the launcher says."""
    given = {"coordinator_address": address, "num_processes": count, "process_id": index}
    shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    if address is None or count is None or index is None:
        missing = "`, `".join(name for name, value in given.items() if value is None)
        raise ValueError(
            f"`{missing}` must be passed too, got {shown} only. Pass all of {', '.join(given)}, or "
            "none to detect the launch from the environment."
        )
    check_address("coordinator_address", address)
    check_index("process_id", index, "num_processes", count)
    known = launch.several and launch.process_count is not None
    if known and (index, count) != (launch.process_index, launch.process_count):
        raise ValueError(
            f"`process_id` and `num_processes` must be those of the launcher, got {index} of "
            f"{count}, but this is {launch}. Leave the arguments out, or unset these variables if "
            "they were inherited from elsewhere."
        )
    # Each process of a launch by arguments may be a launch of one by its launcher.
    identity = launch.identity if known else show_variables(os.environ, LAUNCH_ID)
    explicit = Launch("explicit", index, count, *(None, None, address, shown), identity=identity)
    check_sources(explicit, os.environ)
    return explicit


def _join_by_mpi(launch: Launch, timeout: float, options: dict[str, Any]) -> Launch:
    """Agree on an address through MPI, then join there. Returns the launch with the address."""
    mpi = MPIGroup(timeout=timeout)
    # All processes learn of one that cannot join; else they would wait for it until the timeout.
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
        launch = dataclasses.replace(
            launch,
            process_index=mpi.process_index,
            process_count=mpi.process_count,  # not every launcher has a variable for it
            coordinator=plan["address"],
        )
        launch = with_local_index(launch, mpi.hosts)
        _join_service(launch, timeout, options)
    return launch


def _join_service(launch: Launch, timeout: float, options: dict[str, Any]) -> None:
    """Join JAX's service at the known address, or where JAX finds it: TPU pods and Kubernetes."""
    spare_proxy(launch.coordinator, os.environ)
    devices = choose_local_devices(launch, os.environ)
    if launch.join != "jax":
        given = {
            "coordinator_address": launch.coordinator,
            "num_processes": launch.process_count,
            "process_id": launch.process_index,
            "local_device_ids": devices,
            # Else JAX takes the devices from SLURM's variables if it sees some.
            "cluster_detection_method": "deactivate",
        }
        jax.distributed.initialize(**{**given, **options})
        return
    if launch.local_count is not None and not os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        # An empty list means all devices, None lets JAX choose.
        options = {"local_device_ids": devices or [], **options}
    try:
        with watchdog(timeout + _GRACE, late_text(launch, timeout, "JAX")):
            jax.distributed.initialize(**options)
    except Exception as error:
        raise RuntimeError(
            f"JAX cannot join this process ({launch.launcher}: {launch.evidence}): {error} Pass "
            "`coordinator_address`, `num_processes` and `process_id`."
        ) from error


def has_proxy(environ: Mapping[str, str]) -> bool:
    """Whether gRPC would use a proxy."""
    return any(environ.get(name) for name in _PROXIES)


def spare_proxy(address: str | None, environ: MutableMapping[str, str]) -> None:
    """Have gRPC connect to the coordinator itself, where a proxy is set.

    It would ask the proxy even for an address of this host, and JAX would end every process. Other
    programs than gRPC do not read `no_grpc_proxy`, which takes the place of `no_proxy` for it.
    """
    if address is None or not has_proxy(environ):
        return
    host = address.rpartition(":")[0].strip("[]")
    before = environ.get("no_grpc_proxy") or environ.get("no_proxy")
    if host not in (before or "").split(","):
        environ["no_grpc_proxy"] = f"{before},{host}" if before else host


@contextlib.contextmanager
def _warning_of_waits(launch: Launch, timeout: float) -> Iterator[None]:
    """Log a warning if processes are missing for long: JAX ends the process without a message."""
    where = f"at {launch.coordinator}" if launch.coordinator else "to join"
    after, text = wait_notice(launch, timeout, where)
    fix = "Check that every process was started and can reach process 0."
    timer = threading.Timer(after, _log.warning, ("%s. %s", text, fix))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _too_late(indices: Sequence[int | None]) -> RuntimeError:
    where = ", ".join("this one" if index is None else str(index) for index in indices)
    return RuntimeError(
        f"`initialize()` must be called before JAX starts its devices, but on process {where} it "
        "had started them. Call it at the top of the script, before any JAX computation, "
        "`jax.devices()` or `jax.process_index()`."
    )
