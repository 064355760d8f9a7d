"""What the doctor learns about a launch. Pure; all of it is fit for JSON."""

from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True)
class Process:
    """What a process says of itself before any device starts.

    Attributes:
        index: its index among those that joined.
        host: name of its host.
        pid: its process id.
        versions: package to version, None if it is not installed.
        launcher: what its environment says started it.
        why: the variables that say so.
        launch_index: its index according to the launcher, None if that does not say.
        launch_count: number of processes according to the launcher.
        coordinator: "host:port" of the coordination service, None if there is none or JAX chose it.
        notes: warnings that came up while it joined.
    """

    index: int
    host: str
    pid: int
    versions: dict[str, str | None]
    launcher: str
    why: str
    launch_index: int | None
    launch_count: int | None
    coordinator: str | None
    notes: list[str]


@final
@dataclass(frozen=True)
class Clock:
    """How far a clock is ahead of process 0's, in seconds.

    Attributes:
        offset: best estimate.
        bound: the truth is at most this far from it.
    """

    offset: float
    bound: float


@final
@dataclass(frozen=True)
class Folder:
    """The log folder as a process sees it.

    Attributes:
        path: absolute path that `--log-dir` means there.
        seen: whether process 0's token is in it.
        why: why not.
    """

    path: str
    seen: bool
    why: str = ""


@final
@dataclass(frozen=True)
class Disk:
    """The log folder as process 0 sees it.

    Attributes:
        path: absolute path.
        writable: whether a file could be written there.
        error: why not.
        free: bytes left, None if unknown.
        locks: whether its file system knows locks.
    """

    path: str
    writable: bool
    error: str
    free: int | None
    locks: bool


@final
@dataclass(frozen=True)
class Devices:
    """The devices of a process. With an `error` the rest is empty.

    Attributes:
        platform: e.g. "cpu", "gpu", "tpu".
        kind: what the hardware calls itself.
        local: how many this process has.
        total: how many JAX sees in all processes.
        jax_index: index of the process according to JAX.
        jax_count: number of processes according to JAX.
        asked: value of JAX_PLATFORMS, the only platforms that JAX starts; empty for all.
        error: why they could not be started.
        late: whether starting them had not ended when time was up.
    """

    platform: str = ""
    kind: str = ""
    local: int = 0
    total: int = 0
    jax_index: int = -1
    jax_count: int = 0
    asked: str = ""
    error: str = ""
    late: bool = False


@final
@dataclass(frozen=True)
class Collective:
    """A sum over all devices, as one process met it.

    Attributes:
        first: seconds that the first took, compilation and connections included.
        warm: seconds that one takes after that.
        right: whether the sum was right.
        error: why it failed.
        late: whether it had not ended when time was up.
    """

    first: float = 0.0
    warm: float = 0.0
    right: bool = False
    error: str = ""
    late: bool = False


@final
@dataclass(frozen=True)
class Trackers:
    """Whether process 0 could feed TensorBoard and W&B.

    Attributes:
        tensorboardx: version, None if it cannot be imported.
        tensorboardx_error: why not.
        crc32c: version of the fast checksums, None if they are missing.
        wandb: version, None if it cannot be imported.
        wandb_error: why not.
        wandb_mode: "online", "offline" or "disabled", as W&B's settings have it.
        wandb_url: W&B's server.
        wandb_credentials: whether there are any.
        wandb_reachable: whether the server answered; None if it was not asked.
        wandb_trouble: why it did not.
    """

    tensorboardx: str | None = None
    tensorboardx_error: str = ""
    crc32c: str | None = None
    wandb: str | None = None
    wandb_error: str = ""
    wandb_mode: str = ""
    wandb_url: str = ""
    wandb_credentials: bool = False
    wandb_reachable: bool | None = None
    wandb_trouble: str = ""


@final
@dataclass(frozen=True)
class Facts:
    """All that process 0 has learnt. What is None or empty was not reached.

    Attributes:
        timeout: time limit of each stage in seconds.
        processes: in the order of their indices, like the next four.
        clocks: against process 0.
        folders: the log folder.
        devices: devices.
        collectives: a sum over all devices.
        disk: the log folder on process 0.
        trackers: TensorBoard and W&B on process 0.
        trouble: what ended the examination early; says how to mend it.
    """

    timeout: float
    processes: list[Process] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    devices: list[Devices] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    disk: Disk | None = None
    trackers: Trackers | None = None
    trouble: str = ""
