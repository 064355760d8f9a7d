"""One wrong or unusual use each; reports the error it met."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax

import lerax_dist.cluster as cluster
from tests.multiprocess.launch import report
from tests.multiprocess.meet import meet


def started() -> int:
    """Process index by the launcher, also if nothing is joined."""
    return cluster.detect(os.environ).process_index or 0


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def unjoined() -> dict[str, Any]:
    return {"error": error_of(cluster.current_group), "mpi": "mpi4py" in sys.modules}


def early() -> dict[str, Any]:
    if started() == 1:
        jax.devices()
    return {"error": error_of(lambda: cluster.initialize(timeout=30))}


def conflict() -> dict[str, Any]:
    return {"error": error_of(lambda: cluster.initialize("127.0.0.1:1234", 3, started()))}


def mismatch() -> dict[str, Any]:
    return {"error": error_of(lambda: cluster.initialize(timeout=30))}


def without_mpi4py() -> dict[str, Any]:
    sys.modules["mpi4py"] = None  # pyright: ignore[reportArgumentType]
    return {"error": error_of(lambda: cluster.initialize(timeout=30))}


def taken_port() -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        return {"error": error_of(lambda: cluster.initialize(address, 2, 0, timeout=30))}


def own_initialize() -> dict[str, Any]:
    launch = cluster.detect(os.environ)
    jax.distributed.initialize(
        launch.coordinator,
        launch.process_count,
        launch.process_index,
        cluster_detection_method="deactivate",
    )
    group = cluster.current_group()
    return {
        "kind": type(group).__name__,
        "count": group.process_count,
        "same": cluster.initialize() is group,
        "gathered": group.gather(group.process_index, timeout=30, what="indices"),
    }


def worlds_of_one() -> dict[str, Any]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    jax.distributed.initialize(address, 1, 0, cluster_detection_method="deactivate")
    return {"error": error_of(cluster.current_group)}


def alone() -> dict[str, Any]:
    group = cluster.initialize()
    return {
        "kind": type(group).__name__,
        "launcher": group.launcher,
        "count": group.process_count,
        "same": cluster.initialize() is group and cluster.current_group() is group,
        "service": jax.distributed.is_initialized(),
    }


def disagree() -> dict[str, Any]:
    group = cluster.MPIGroup() if sys.argv[2] == "mpi" else cluster.initialize()
    what = f"the rows of {'training' if started() == 0 else 'evaluation'}"
    error = error_of(lambda: group.broadcast(1, timeout=30, what=what))
    return {"error": error}


def low_thread_level() -> dict[str, Any]:
    import mpi4py

    mpi4py.rc.thread_level = "funneled"
    group = cluster.MPIGroup()
    group.barrier(timeout=30, what="the main thread")
    errors: list[str] = []
    thread = threading.Thread(
        target=lambda: errors.append(
            error_of(lambda: group.barrier(timeout=30, what="another thread"))
        )
    )
    thread.start()
    thread.join()
    return {"error": errors[0]}


def late_to_join() -> dict[str, Any]:
    from mpi4py import MPI

    error = ""
    if started() == 0:
        error = error_of(lambda: cluster.initialize(timeout=2))
    MPI.COMM_WORLD.barrier()
    return {"error": error}


def never() -> dict[str, Any]:
    meet(started(), 3)
    if started() == 2:
        return {"error": ""}
    return {"error": error_of(lambda: cluster.initialize(timeout=4))}


def dead() -> dict[str, Any]:
    group = cluster.initialize(timeout=60)
    if group.process_index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    report({"process": 0, "error": error_of(lambda: group.gather(0, timeout=3, what="rows"))})
    # JAX would wait for the dead one at exit, and then abort.
    os._exit(0)


report({"process": started(), **globals()[sys.argv[1]]()})
