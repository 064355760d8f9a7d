"""Where the processes of a launch can meet before JAX joins them. Pure."""

from collections.abc import Mapping

from lerax_dist.cluster._launch import Launch

_TPU_PORT = 8482


def meeting_point(launch: Launch, environ: Mapping[str, str]) -> str | None:
    """An address that all processes know, that process 0 can listen on, and that JAX uses later.

    Args:
        launch: launch of this process.
        environ: its environment variables.

    Returns:
        "host:port"; None if the launch has none (MPI agrees on one by messages; Kubernetes and
        TPU pods on Compute Engine are known to JAX only) or process 0 listens elsewhere than the
        others look.
    """
    if not launch.several or launch.process_index is None:
        return None
    if environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        return None
    if launch.launcher in ("explicit", "torchrun"):
        return launch.coordinator
    if launch.launcher in ("slurm", "tpu") and environ.get("JAX_COORDINATOR_ADDRESS"):
        return environ["JAX_COORDINATOR_ADDRESS"]
    if launch.launcher == "slurm":
        return _slurm_address(environ)
    if launch.launcher == "tpu":
        return _tpu_address(environ)
    return None


def _slurm_address(environ: Mapping[str, str]) -> str | None:
    """The address that JAX chooses under SLURM: the step's first node, a port from the job's id."""
    node = first_node(environ.get("SLURM_STEP_NODELIST", ""))
    job, port = environ.get("SLURM_JOB_ID", ""), environ.get("JAX_COORDINATOR_PORT", "")
    if not node:
        return None
    if not port.isdecimal():
        if not job.isdecimal():
            return None
        port = str(65536 - 4096 + int(job) % 4096)
    return f"{node}:{port}"


def _tpu_address(environ: Mapping[str, str]) -> str | None:
    """The address that JAX chooses on a TPU pod of Kubernetes: the first host, a fixed port."""
    first = environ.get("MEGASCALE_COORDINATOR_ADDRESS")
    first = first or environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if not first:
        return None
    host = first.split(",")[0].split(":")[0]
    return f"{host}:{environ.get('JAX_COORDINATOR_PORT') or _TPU_PORT}"


def first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes, e.g. "n007" of "n[007-015],m1"."""
    for place, char in enumerate(nodes):
        if char == ",":
            return nodes[:place]
        if char == "[":
            inner, _, _ = nodes[place + 1 :].partition("]")
            return nodes[:place] + inner.replace("-", ",").split(",")[0]
    return nodes
