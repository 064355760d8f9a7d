"""What a launcher is, and how its environment variables are read. Pure."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

JAX_ADDRESS = "JAX_COORDINATOR_ADDRESS"
# Tells launches apart where the launcher does not; a user sets it, to one value for each launch.
LAUNCH_ID = "LERAX_DIST_LAUNCH_ID"

# How processes join JAX's coordination service:
# "jax": JAX's detection finds the other processes;
# "address": every process knows `Launch.coordinator`;
# "mpi": process 0 chooses an address and broadcasts it through MPI;
# "address or mpi": the launcher starts programs with and without MPI. The address if one is known,
#   else MPI if mpi4py is installed.
Join = Literal["jax", "address", "mpi", "address or mpi"]


@final
@dataclass(frozen=True)
class Launch:
    """What the environment says about this process; `None` for what it does not say.

    Attributes:
        launcher: "solo", "explicit" or the name of a launcher in `launchers/`.
        process_index: index of this process among all processes.
        process_count: number of processes of the launch.
        local_index: index of this process among those of its host. Open MPI 5 does not number these
            in the order of `process_index`.
        local_count: number of processes on this host.
        coordinator: "host:port" that all processes can reach and process 0 can listen on; on TPU
            pods the address that JAX will choose.
        evidence: the variables seen, with their values.
        join: how the processes join JAX's coordination service.
        gpus_on_host: number of GPUs that the launch has on this host.
        start_with: the command that starts several processes in this job, e.g. "srun", if this
            process is in a job but that command did not start it; else empty.
        identity: variables that tell this launch from others, with their values: the same on all
            its processes, and another on those of any other launch. Empty if there are none.
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
    identity: str = ""

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
        """Whether the processes of this launch can communicate through MPI. Imports nothing."""
        if self.join == "address or mpi":
            return importlib.util.find_spec("mpi4py") is not None
        return self.join == "mpi"


@final
@dataclass(frozen=True)
class Job:
    """The batch job that this process runs in, whether or not the batch system launched it."""

    scheduler: str  # name of the batch system, e.g. "slurm"
    id: str  # stays when the job is requeued
    restart_count: int = 0  # how often it was requeued, 0 if the batch system does not say


class AbstractLauncher:
    """A program that starts processes and sets variables by which each knows its index."""

    name: ClassVar[str]
    join: ClassVar[Join] = "address"
    # Variables of this process's index and of the number of processes.
    names: ClassVar[tuple[str, str]]
    # The same two on this host, which may be unset or malformed; "" where there is none.
    local_names: ClassVar[tuple[str, str]] = ("", "")
    # The command that starts processes in a job.
    starter: ClassVar[str] = ""
    # Variables that every process in a job has, whatever started it.
    job_variables: ClassVar[tuple[str, ...]] = ()
    # Variables that are the same on all processes of a launch, and differ between launches.
    launch_variables: ClassVar[tuple[str, ...]] = ()
    # Whether RANK and WORLD_SIZE may name another process. Elsewhere they must not: scripts often
    # set them from the launcher's variables.
    ignores_rank: ClassVar[bool] = False

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        """The launch of this process; `None` if this launcher did not start it.

        Raises:
            ValueError: if a variable of this launcher is malformed.
        """
        return self.read(environ)

    def job(self, environ: Mapping[str, str]) -> Job | None:
        """The batch job around this process, whatever started it; `None` for none."""
        return None

    def why_not_launched(self, environ: Mapping[str, str]) -> str:
        """Why a process in a job of this launcher is not launched by it; empty outside of a job."""
        seen = show_variables(environ, *self.job_variables)
        return f"{seen}, but not started by {self.starter}" if seen else ""

    def read(
        self,
        environ: Mapping[str, str],
        local_names: tuple[str, str] | None = None,
        *,
        count_is_required: bool = True,
    ) -> Launch | None:
        """The launch by `names` and `local_names`; `None` if the index or the count is not set.

        Where the launcher does not always set the count, the count may be `None` instead.
        """
        has_index, has_count = (name in environ for name in self.names)
        if not has_index or (count_is_required and not has_count):
            return None
        count = None
        if has_count:
            index, count = read_index(environ, *self.names)
        else:
            index = read_number(environ, self.names[0])
        return Launch(
            self.name,
            *(index, count),
            *(read_optional(environ, name) for name in local_names or self.local_names),
            coordinator=None if self.join == "mpi" else environ.get(JAX_ADDRESS) or None,
            evidence=show_variables(environ, *self.names),
            join=self.join,
        )


def check_address(name: str, address: str) -> str:
    """`address`; raises a ValueError that shows it with its `name` unless it reads "host:port"."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(
            f"`{name}` must read host:port with a port of 1 to 65535, got {address!r}. "
            'Give the host of process 0 and a free port there, e.g. "10.0.0.1:12345".'
        )
    return address


def check_index(index_name: str, index: int, count_name: str, count: int) -> None:
    """Raise a ValueError unless a process `index` of `count` can exist."""
    if count < 1 or not 0 <= index < count:
        raise ValueError(
            f"`{index_name}` must be 0 or more and less than `{count_name}`, got {index} of "
            f"{count}. Number the processes 0 to {max(count - 1, 0)}."
        )


def read_index(environ: Mapping[str, str], index_name: str, count_name: str) -> tuple[int, int]:
    """Index and count from two variables; raises a ValueError if they are not a process's."""
    index, count = read_number(environ, index_name), read_number(environ, count_name)
    check_index(index_name, index, count_name, count)
    return index, count


def read_number(environ: Mapping[str, str], name: str) -> int:
    """A variable; raises a ValueError unless it is a whole number of 0 or more."""
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
