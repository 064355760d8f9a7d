"""Which launch this process belongs to, read from environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

MPI_LAUNCHERS = ("openmpi", "mpich")

_ADDRESS = "LERAX_DIST_COORDINATOR_ADDRESS"
_COUNT = "LERAX_DIST_NUM_PROCESSES"
_INDEX = "LERAX_DIST_PROCESS_ID"
_JAX_ADDRESS = "JAX_COORDINATOR_ADDRESS"

# Steps that SLURM makes by itself: interactive shell, batch script, external. Their SLURM_PROCID is
# 0 although nothing was launched with srun.
_OWN_STEPS = ("4294967290", "4294967291", "4294967292")


@final
@dataclass(frozen=True)
class Launch:
    """What the environment says about this process; None is what it does not say.

    Attributes:
        launcher: "solo", "explicit", "openmpi", "mpich" (with all that speak PMI, so Intel MPI
            too), "slurm", "tpu", "torchrun", "kubernetes" or "jax" (an address alone).
        process_index: index of this process among all processes.
        process_count: number of processes of the launch.
        local_index: index of this process among those of its host. Open MPI 5 does not hand these
            out in the order of `process_index`.
        local_count: number of processes on this host.
        coordinator: "host:port" that all processes can reach and process 0 can listen on.
        why: the variables seen, with their values.
    """

    launcher: str
    process_index: int | None
    process_count: int | None
    local_index: int | None
    local_count: int | None
    coordinator: str | None
    why: str

    @property
    def several(self) -> bool:
        """Whether this process is known to be one of several."""
        return self.process_count is not None and self.process_count > 1


def detect(environ: Mapping[str, str]) -> Launch:
    """Read the launch of a process from its environment.

    Variables are asked in an order that is right for launchers inside launchers: the explicit
    `LERAX_DIST_*`, torchrun itself, Open MPI, PMI, SLURM steps, TPU, `RANK` and `WORLD_SIZE`,
    Kubernetes, `JAX_COORDINATOR_ADDRESS` alone. `mpirun` inside a SLURM allocation leaves every
    rank with `SLURM_PROCID=0`, torchrun with the place of its agent; a batch script or `salloc`
    shell has SLURM's variables of the whole job but is a single process.

    Args:
        environ: environment variables, e.g. `os.environ`.

    Returns:
        The launch; process 0 of 1 of the launcher "solo" if nothing was found.

    Raises:
        ValueError: an index or a count is not a number, or does not fit its pair; or two sources
            contradict each other.
    """
    for read in (
        *(_explicit, _torchrun_agent, _openmpi, _pmi, _slurm, _tpu),
        *(_torchrun, _kubernetes, _jax),
    ):
        launch = read(environ)
        if launch is not None:
            check_sources(launch, environ)
            return launch
    seen = _seen(environ, "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID")
    why = f"{seen}, but no step of srun" if seen else "no variables of a launcher"
    return Launch("solo", 0, 1, 0, 1, None, why)


def check_sources(launch: Launch, environ: Mapping[str, str]) -> None:
    """Check that no other source says something else than a launch.

    What contains a launcher by design is no other source: a SLURM allocation around `mpirun`, any
    launcher around torchrun.

    Raises:
        ValueError: one does; the message shows both.
    """
    others = {
        "explicit": (_openmpi, _pmi, _slurm, _tpu, _torchrun),
        "openmpi": (_torchrun,),
        "mpich": (_torchrun,),
        "slurm": (_torchrun,),
    }
    mine = (launch.process_index, launch.process_count)
    for read in others.get(launch.launcher, ()):
        other = read(environ)
        theirs = (other.process_index, other.process_count) if other else mine
        if other and other.several and theirs != mine:
            raise ValueError(
                f"`{launch.launcher}` and `{other.launcher}` must name the same launch, got "
                f"process {mine[0]} of {mine[1]} ({launch.why}) and process {theirs[0]} of "
                f"{theirs[1]} ({other.why}). Unset the variables that were inherited from "
                "elsewhere."
            )
    told = environ.get(_JAX_ADDRESS)
    if told and launch.coordinator not in (None, told):
        raise ValueError(
            f"`{_JAX_ADDRESS}` and the launch must name the same coordinator, got {told!r} and "
            f"{launch.coordinator!r} ({launch.launcher}: {launch.why}). Unset one of them."
        )


def check_address(name: str, address: str) -> str:
    """`address` if it reads "host:port".

    Raises:
        ValueError: it does not.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(
            f"`{name}` must read host:port with a port of 1 to 65535, got {address!r}. "
            'Give the host of process 0 and a free port there, e.g. "10.0.0.1:12345".'
        )
    return address


def check_place(index_name: str, index: int, count_name: str, count: int) -> None:
    """Check that there can be a process `index` of `count`.

    Raises:
        ValueError: there cannot.
    """
    if count < 1 or not 0 <= index < count:
        raise ValueError(
            f"`{index_name}` must be 0 or more and less than `{count_name}`, got {index} of "
            f"{count}. Number the processes 0 to {max(count - 1, 0)}."
        )


def _explicit(environ: Mapping[str, str]) -> Launch | None:
    names = (_ADDRESS, _COUNT, _INDEX)
    missing = [name for name in names if not environ.get(name)]
    if len(missing) == len(names):
        return None
    if missing:
        raise ValueError(
            f"`{'`, `'.join(missing)}` must be set too, as there is {_seen(environ, *names)}. "
            f"Set all of {', '.join(names)}, or none."
        )
    index, count = _place(environ, _INDEX, _COUNT)
    address = check_address(_ADDRESS, environ[_ADDRESS])
    return Launch("explicit", index, count, None, None, address, _seen(environ, *names))


def _openmpi(environ: Mapping[str, str]) -> Launch | None:
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
    if not all(name in environ for name in names):
        return None
    index, count = _place(environ, *names)
    local_index = _optional(environ, "OMPI_COMM_WORLD_LOCAL_RANK")
    local_count = _optional(environ, "OMPI_COMM_WORLD_LOCAL_SIZE")
    return Launch("openmpi", index, count, local_index, local_count, None, _seen(environ, *names))


def _pmi(environ: Mapping[str, str]) -> Launch | None:
    names = ("PMI_RANK", "PMI_SIZE")
    if not all(name in environ for name in names):
        return None
    index, count = _place(environ, *names)
    step = (environ.get("SLURM_PROCID"), environ.get("SLURM_STEP_NUM_TASKS"))
    if step == (str(index), str(count)) and "MPI_LOCALNRANKS" not in environ:
        # `srun --mpi=pmi2`, the default of many clusters whether a program uses MPI or not: SLURM
        # itself is the launcher, and joining needs no MPI library.
        return None
    # Hydra's names, then those of Cray's launchers.
    hydra = "MPI_LOCALRANKID" in environ
    local_index = _optional(environ, "MPI_LOCALRANKID" if hydra else "PMI_LOCAL_RANK")
    local_count = _optional(environ, "MPI_LOCALNRANKS" if hydra else "PMI_LOCAL_SIZE")
    return Launch("mpich", index, count, local_index, local_count, None, _seen(environ, *names))


def _slurm(environ: Mapping[str, str]) -> Launch | None:
    # Not SLURM_NTASKS: that is the job's in a batch script and in an interactive shell.
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    if not all(name in environ for name in names) or environ.get("SLURM_STEP_ID") in _OWN_STEPS:
        return None
    index, count = _place(environ, *names)
    local_index = _optional(environ, "SLURM_LOCALID")
    node = _optional(environ, "SLURM_NODEID")
    local_count = _tasks_on_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""), node)
    return Launch("slurm", index, count, local_index, local_count, None, _seen(environ, *names))


def _tasks_on_node(text: str, node: int | None) -> int | None:
    """Number of tasks on a node from SLURM's list, e.g. "2(x3),1"; None if it cannot be read."""
    counts: list[int] = []
    for part in text.split(","):
        tasks, _, times = part.removesuffix(")").partition("(x")
        if not tasks.isdecimal() or not (times or "1").isdecimal():
            return None
        counts += [int(tasks)] * int(times or "1")
    return counts[node] if node is not None and node < len(counts) else None


def _tpu(environ: Mapping[str, str]) -> Launch | None:
    hosts_name = next(
        (name for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES") if environ.get(name)),
        None,
    )
    if hosts_name is not None and environ.get("TPU_WORKER_ID"):
        workers = len(environ[hosts_name].split(","))
        worker = _number(environ, "TPU_WORKER_ID")
        check_place("TPU_WORKER_ID", worker, f"hosts in {hosts_name}", workers)
        slices, piece = 1, 0
        if environ.get("MEGASCALE_NUM_SLICES") and environ.get("MEGASCALE_SLICE_ID"):
            piece, slices = _place(environ, "MEGASCALE_SLICE_ID", "MEGASCALE_NUM_SLICES")
        why = _seen(
            environ, "TPU_WORKER_ID", hosts_name, "MEGASCALE_SLICE_ID", "MEGASCALE_NUM_SLICES"
        )
        return Launch("tpu", worker + piece * workers, workers * slices, 0, 1, None, why)
    # On a Google Cloud TPU VM the pod is known to the metadata server only, which JAX asks. It sets
    # the first of these when it finds TPU chips, the second when it finds none.
    if environ.get("TPU_ML_PLATFORM") == "JAX" and not environ.get("TPU_SKIP_MDS_QUERY"):
        return Launch("tpu", None, None, 0, 1, None, _seen(environ, "TPU_ML_PLATFORM"))
    return None


def _torchrun_agent(environ: Mapping[str, str]) -> Launch | None:
    """torchrun itself, which one agent per node starts: their own launcher is around it."""
    return _torchrun(environ) if environ.get("TORCHELASTIC_RUN_ID") else None


def _torchrun(environ: Mapping[str, str]) -> Launch | None:
    names = ("RANK", "WORLD_SIZE")
    if not all(name in environ for name in names):
        return None
    index, count = _place(environ, *names)
    local_index = _optional(environ, "LOCAL_RANK")
    local_count = _optional(environ, "LOCAL_WORLD_SIZE")
    address = environ.get(_JAX_ADDRESS) or None
    # With its own store torchrun itself listens there.
    if address is None and environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        host, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
        address = check_address("MASTER_ADDR:MASTER_PORT", f"{host}:{port}") if host else None
    why = _seen(environ, *names, "MASTER_ADDR", "MASTER_PORT")
    return Launch("torchrun", index, count, local_index, local_count, address, why)


def _kubernetes(environ: Mapping[str, str]) -> Launch | None:
    # An indexed job; how many there are only the cluster's API says.
    names = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
    if not all(environ.get(name) for name in names):
        return None
    index = _number(environ, "JOB_COMPLETION_INDEX")
    return Launch("kubernetes", index, None, None, None, None, _seen(environ, *names))


def _jax(environ: Mapping[str, str]) -> Launch | None:
    """Somebody means a launch of several, but only the arguments can say which process this is."""
    if not environ.get(_JAX_ADDRESS):
        return None
    address = check_address(_JAX_ADDRESS, environ[_JAX_ADDRESS])
    return Launch("jax", None, None, None, None, address, _seen(environ, _JAX_ADDRESS))


def _place(environ: Mapping[str, str], index_name: str, count_name: str) -> tuple[int, int]:
    index, count = _number(environ, index_name), _number(environ, count_name)
    check_place(index_name, index, count_name, count)
    return index, count


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name].strip()
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(
            f"`{name}` must be a whole number of 0 or more, got {environ[name]!r}. "
            "The launcher sets it; unset it if it was inherited from elsewhere."
        )
    return int(text)


def _optional(environ: Mapping[str, str], name: str) -> int | None:
    """A number that is nice to know, so one that cannot be read ends no training."""
    text = environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def _seen(environ: Mapping[str, str], *names: str) -> str:
    """The variables that are set, e.g. "RANK=1 WORLD_SIZE=2"; long values are cut."""
    return " ".join(
        f"{name}={value if len(value) <= 80 else value[:77] + '...'}"
        for name in names
        if (value := environ.get(name)) is not None
    )
