"""The group that this process belongs to, for whoever was not handed one."""

import logging
import os
import threading
from typing import Any, final

from lerax_dist.cluster._group import ProcessGroup, SoloGroup
from lerax_dist.cluster._hardware import place_by_devices
from lerax_dist.cluster._jax_group import JaxGroup
from lerax_dist.cluster._launch import MPI_LAUNCHERS, Launch, detect
from lerax_dist.cluster._mpi_group import MPIGroup
from lerax_dist.cluster._store import joined_client, joined_place

_log = logging.getLogger("lerax_dist")


def current_group(group: ProcessGroup | None = None, scope: str | None = None) -> ProcessGroup:
    """The group to log with: the given one, else the one this process has joined.

    Imports no MPI, but for `scope="process"` under `mpirun`. Starts the devices of a process that
    seems to be on its own.

    Args:
        group: the caller's choice; None to find out.
        scope: likewise, see `choose_scope`.

    Returns:
        `group`; or the one of `initialize()` or `jax.distributed.initialize()`; or, if `mpirun` has
        started processes that run one program each, an `MPIGroup`; or, if no launcher started
        several processes, a `SoloGroup`.

    Raises:
        RuntimeError: a launcher started several processes, or a TPU has several hosts, and this
            process has not joined the others, so each would take itself for process 0.
        TypeError: `group` is not a group.
    """
    if group is not None:
        if not isinstance(group, ProcessGroup):
            raise TypeError(
                f"`group` must be a `ProcessGroup`, got {group!r}. Pass what `initialize()` "
                "returned, `MPIGroup()` or `SoloGroup()`, or nothing."
            )
        return group
    joined = membership.group()
    if joined is not None:
        return joined
    launch = detect(os.environ)
    if launch.several and scope == "process" and launch.launcher in MPI_LAUNCHERS:
        return MPIGroup()
    # JAX is asked last, as that starts the devices: only they know that a TPU has other hosts.
    place = (launch.process_index, launch.process_count) if launch.several else place_by_devices()
    if place[1] == 1:
        return SoloGroup(launch.launcher)
    several = 'For processes that run one program each pass `scope="process"`, for'
    raise RuntimeError(
        f"This is process {place[0]} of {place[1]} ({launch.launcher}: {launch.why}), but it has "
        "not joined the others, so each of them would write the run. Call "
        "`lerax_dist.initialize()` at the top of the script, before any JAX computation. "
        f"{several if launch.several else 'For'} runs that have nothing to do with each other "
        "`group=SoloGroup()`."
    )


def choose_scope(group: ProcessGroup, scope: str | None) -> str:
    """Whether the processes run one program together, or one program each.

    Args:
        group: the processes.
        scope: the caller's choice, `"global"` or `"process"`; None to find out.

    Returns:
        `scope`; by default `"global"` if JAX has joined the processes (or there is one only),
        `"process"` if it has not, so that no program can span them.

    Raises:
        ValueError: `scope` is something else, or the group has no mailbox for `"process"`.
    """
    if scope not in (None, "global", "process"):
        raise ValueError(
            f'`scope` must be "global", "process" or None, got {scope!r}. "global" is one program '
            'over the devices of all processes, "process" one program in each.'
        )
    if group.process_count == 1:
        return "global"
    if scope is None:
        joined = joined_client() is not None and joined_place()[1] == group.process_count
        return "global" if joined else "process"
    if scope == "process" and not hasattr(group, "mailbox"):
        raise ValueError(
            f'`scope` is "process", but {group!r} has no `mailbox()` through which the processes '
            "send their rows. Pass an `MPIGroup` or a `JaxGroup`."
        )
    return scope


def find_place() -> tuple[int | None, int | None]:
    """Index of this process and number of processes, as far as they are known now; else None.

    Waits for nothing, starts nothing, and says nothing.
    """
    if joined_client() is not None:
        return joined_place()
    launch = detect(os.environ)
    return launch.process_index, launch.process_count


@final
class Membership:
    """What this process has joined. JAX allows one coordination service a process, so one of these.

    A `jax.distributed.initialize()` of the user's own counts, whenever it came, and
    `jax.distributed.shutdown()` ends it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group: ProcessGroup | None = None
        self._client: Any = None

    def group(self) -> ProcessGroup | None:
        """The group of the service joined, or of `initialize()` alone; None before either."""
        with self._lock:
            client = joined_client()
            if client is not self._client:
                self._group = self._client = None
                if client is not None:
                    self._join(client, detect(os.environ))
            return self._group

    def join(self, launch: Launch) -> ProcessGroup:
        """Remember what `initialize` has joined; a launch of one joins nothing."""
        with self._lock:
            client = joined_client()
            if client is None:
                self._group, self._client = SoloGroup(launch.launcher), None
                return self._group
            return self._join(client, launch)

    def _join(self, client: Any, launch: Launch) -> ProcessGroup:
        group = JaxGroup("explicit" if launch.launcher == "solo" else launch.launcher)
        _check_joined(group, launch)
        self._group, self._client = group, client
        return group


membership = Membership()


def _check_joined(group: JaxGroup, launch: Launch) -> None:
    """Check that JAX has joined the processes that the launcher started.

    Raises:
        RuntimeError: JAX has made a world of one process out of each.
    """
    here, there = group.process_count, launch.process_count
    if there is None or there == 1 or (here, group.process_index) == (there, launch.process_index):
        return
    if here == 1:
        raise RuntimeError(
            f"JAX has joined 1 process, but the launcher started process {launch.process_index} of "
            f"{there} ({launch.launcher}: {launch.why}), so each of them would write the run. Call "
            "`lerax_dist.initialize()` in place of `jax.distributed.initialize()`, or, for runs "
            "that have nothing to do with each other, pass `group=SoloGroup()`."
        )
    _log.warning(
        "JAX says process %d of %d, the launcher process %s of %d (%s: %s); JAX's word counts.",
        *(group.process_index, here),
        *(launch.process_index, there, launch.launcher, launch.why),
    )
