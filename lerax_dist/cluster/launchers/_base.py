"""What a launcher is, and how its environment variables are read. Pure."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

JAX_ADDRESS = "JAX_COORDINATOR_ADDRESS"

# How processes join JAX's coordination service:
# "jax": JAX's own detection finds the other processes;
# "address": every process knows `Launch.coordinator`;
# "mpi": process 0 chooses an address and broadcasts it through MPI;
# "address or mpi": the launcher starts programs with and without MPI. The address if one is known,
#   else MPI if mpi4py is installed.
Join = Literal["jax", "address", "mpi", "address or mpi"]


@final
@dataclass(frozen=True)
class Launch:
    """What the environment says about this process. `None` stands for what it does not say.

    Attributes:
        launcher: "solo", "explicit" or the name of a launcher in `launchers/`.
        process_index: index of this process among all processes.
        process_count: number of processes of the launch.
        local_index: index of this process among those of its host. Open MPI 5 does not number these
            in the order of `process_index`.
        local_count: number of processes on this host.
        coordinator: "host:port" that all processes can reach and process 0 can listen on; under
            SLURM and on TPU pods the address that JAX will choose.
        evidence: the variables seen, with their values.
        join: how the processes join JAX's coordination service.
        gpus_on_host: number of GPUs that the launch has on this host.
        start_with: the command that starts several processes in this job, e.g. "srun", if this
            process is in a job but that command did not start it; else empty.
    """

    launcher: str
    process_index: int | None
    process_count: int | None
    local_index: int | None
    local_count: int | None
    coordinator: str | None
    evidence: str
    join: Join = "address"
    gpus_on_host: int | None = None
    start_with: str = ""

    def __str__(self) -> str:
        """E.g. "process 1 of 4 (openmpi: OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4)"."""
        count = "an unknown number" if self.process_count is None else self.process_count
        return f"process {self.process_index} of {count} ({self.launcher}: {self.evidence})"

    @property
    def several(self) -> bool:
        """Whether this process is known to be one of several."""
        known = self.local_count if self.process_count is None else self.process_count
        return known is not None and known > 1

    @property
    def uses_mpi(self) -> bool:
        """Whether the processes of this launch can talk through MPI. It imports nothing."""
        if self.join == "address or mpi":
            return importlib.util.find_spec("mpi4py") is not None
        return self.join == "mpi"


@final
@dataclass(frozen=True)
class Job:
    """The job of a batch system that this process runs in, launched by it or not.

    Attributes:
        scheduler: name of the batch system, e.g. "slurm".
        id: the job's id. It stays when the job is requeued.
        restart_count: how often the job was requeued, 0 if the batch system does not say.
    """

    scheduler: str
    id: str
    restart_count: int = 0


class AbstractLauncher(ABC):
    """Something that starts processes and tells each of them by variables which one it is."""

    name: ClassVar[str]
    # The command that starts processes in a job.
    starter: ClassVar[str] = ""
    # Whether RANK and WORLD_SIZE, where both are set, must name the same process. Scripts often
    # set them from the launcher's own variables.
    checks_rank: ClassVar[bool] = False

    @abstractmethod
    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        """The launch of this process; `None` if this launcher did not start it.

        Raises:
            ValueError: if a variable of this launcher is malformed.
        """

    def job(self, environ: Mapping[str, str]) -> Job | None:
        """The batch job around this process; `None` if this launcher has no jobs or there is none.

        It is asked for every process, also where `mpirun` or nothing at all started it in a job.
        """
        return None

    def unused(self, environ: Mapping[str, str]) -> str:
        """Why a process inside a job of this launcher is not launched by it; empty elsewhere.

        E.g. "SLURM_JOB_ID=71, but no step of srun".
        """
        return ""


def check_address(name: str, address: str) -> str:
    """`address` if it reads "host:port".

    Raises:
        ValueError: if it does not.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(
            f"`{name}` must read host:port with a port of 1 to 65535, got {address!r}. "
            'Give the host of process 0 and a free port there, e.g. "10.0.0.1:12345".'
        )
    return address


def check_index(index_name: str, index: int, count_name: str, count: int) -> None:
    """Check that a process `index` of `count` can exist.

    Raises:
        ValueError: if it cannot.
    """
    if count < 1 or not 0 <= index < count:
        raise ValueError(
            f"`{index_name}` must be 0 or more and less than `{count_name}`, got {index} of "
            f"{count}. Number the processes 0 to {max(count - 1, 0)}."
        )


def read_index(environ: Mapping[str, str], index_name: str, count_name: str) -> tuple[int, int]:
    """Index and count from two variables.

    Raises:
        ValueError: if one is not a number, or the index does not fit the count.
    """
    index, count = read_number(environ, index_name), read_number(environ, count_name)
    check_index(index_name, index, count_name, count)
    return index, count


def read_number(environ: Mapping[str, str], name: str) -> int:
    """A variable that must be a whole number of 0 or more.

    Raises:
        ValueError: if it is not.
    """
    text = environ[name].strip()
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(
            f"`{name}` must be a whole number of 0 or more, got {environ[name]!r}. "
            "The launcher sets it; unset it if it was inherited from elsewhere."
        )
    return int(text)


def read_optional(environ: Mapping[str, str], name: str) -> int | None:
    """A whole number that training can do without: `None` if it is unset or malformed."""
    text = environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def show_variables(environ: Mapping[str, str], *names: str) -> str:
    """The variables that are set, e.g. "RANK=1 WORLD_SIZE=2"; long values are cut."""
    return " ".join(
        f"{name}={value if len(value) <= 80 else value[:77] + '...'}"
        for name in names
        if (value := environ.get(name)) is not None
    )
