"""The group that this process has joined, and which process of it this is."""

import dataclasses
import logging
import os
import threading
from typing import Any, final

import jax

from lerax_dist.cluster._child import check_no_child, child_error, mark_joined, unmark_joined
from lerax_dist.cluster._group import ProcessGroup, SoloGroup
from lerax_dist.cluster._jax_group import JaxGroup
from lerax_dist.cluster._mpi_group import MPIGroup
from lerax_dist.cluster._store import joined_client, joined_place
from lerax_dist.cluster.launchers import Launch, detect

_log = logging.getLogger("lerax_dist")


def current_group(group: ProcessGroup | None = None, scope: str | None = None) -> ProcessGroup:
    """The group to log with: the given one, else the one that this process has joined.

    Else, under an MPI launcher and for `scope="process"`, an `MPIGroup`; MPI is imported only then.
    Else, if no launcher started several processes, a `SoloGroup`; the devices are started then.

    Raises:
        RuntimeError: if a launcher started several processes, or a TPU has several hosts, and this
            process has not joined the others: each process would act as process 0; or if it is a
            child of a process that has.
        TypeError: if `group` is not a `ProcessGroup`.
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
    if launch.several:
        check_no_child(launch)
    if launch.several and scope == "process" and launch.uses_mpi:
        return MPIGroup()
    one_program_each = 'For processes that run one program each pass `scope="process"`. '
    if not launch.several:
        # JAX is asked last, as that starts the devices: only they know that a TPU has other hosts,
        # and libtpu knows them whether or not JAX has joined them.
        try:
            index, count = jax.process_index(), jax.process_count()
        except Exception:
            index, count = 0, 1
        if count == 1:
            return SoloGroup(launch.launcher)
        launch = dataclasses.replace(launch, process_index=index, process_count=count)
        one_program_each = ""
    raise RuntimeError(
        f"This is {launch}, but it has not joined the other processes, so each of them would write "
        "the run. Call `lerax_dist.initialize()` at the top of the script, before any JAX "
        f"computation. {one_program_each}For independent runs pass `group=SoloGroup()`."
    )


def choose_scope(group: ProcessGroup, scope: str | None) -> str:
    """Whether the processes run one program together (`"global"`) or one each (`"process"`).

    `scope` is the caller's choice. By default it is `"global"` if JAX has joined the processes or
    there is only one, and `"process"` if it has not, so that no program can span them.
    """
    if scope not in (None, "global", "process"):
        raise ValueError(
            f'`scope` must be "global", "process" or None, got {scope!r}. "global" is one program '
            'over the devices of all processes, "process" one program in each.'
        )
    if group.process_count == 1:
        return "global"
    if scope is not None:
        return scope
    joined = joined_client() is not None and joined_place()[1] == group.process_count
    return "global" if joined else "process"


def process_place() -> tuple[int | None, int | None]:
    """Index of this process and number of processes; None for what is not known without a wait."""
    if joined_client() is not None:
        return joined_place()
    launch = detect(os.environ)
    return launch.process_index, launch.process_count


@final
class Membership:
    """What this process has joined: JAX allows one coordination service a process.

    It follows calls of `jax.distributed.initialize()` and `jax.distributed.shutdown()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group: ProcessGroup | None = None
        self._client: Any = None
        self._pid = os.getpid()

    def group(self) -> ProcessGroup | None:
        """The group of the service joined, or of `initialize()` alone; None before either."""
        with self._lock:
            client = joined_client()
            if client is not self._client:
                self._group = self._client = None
                unmark_joined()
                if client is not None:
                    self._join(client, detect(os.environ))
            if self.is_fork:
                raise child_error(self._pid, "process {} of {}".format(*joined_place()))
            return self._group

    @property
    def is_fork(self) -> bool:
        """Whether this is a fork of a process that has joined: it has none of its threads."""
        return self._client is not None and self._pid != os.getpid()

    def join(self, launch: Launch) -> ProcessGroup:
        """Remember what `initialize` has joined; a launch of one process joins nothing."""
        with self._lock:
            client = joined_client()
            if client is None:
                self._group, self._client = SoloGroup(launch.launcher), None
                return self._group
            return self._join(client, launch)

    def _join(self, client: Any, launch: Launch) -> ProcessGroup:
        group = JaxGroup("explicit" if launch.launcher == "solo" else launch.launcher)
        _check_joined(group, launch)
        self._group, self._client, self._pid = group, client, os.getpid()
        mark_joined(launch)
        return group


membership = Membership()


def _check_joined(group: JaxGroup, launch: Launch) -> None:
    """Raise a RuntimeError if JAX has joined one process where the launcher started several."""
    index, count = group.process_index, group.process_count
    launched = (launch.process_index, launch.process_count)
    if launch.process_count in (None, 1) or (index, count) == launched:
        return
    if count == 1:
        raise RuntimeError(
            f"JAX has joined 1 process, but the launcher started {launch}, so each process would "
            "write the run. Call `lerax_dist.initialize()` in place of "
            "`jax.distributed.initialize()`. For independent runs pass `group=SoloGroup()`."
        )
    _log.warning(
        "This is process %d of %d in JAX, but %s by its launcher. The index in JAX is used.",
        *(index, count, launch),
    )
