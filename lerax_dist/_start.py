"""The run, once it is known which: started on process 0, joined on the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lerax_dist._directory import Taken
from lerax_dist._facts import collect_facts
from lerax_dist._failures import Failures
from lerax_dist._idle import IdleRun
from lerax_dist.cluster import ProcessGroup, with_counts
from lerax_dist.host._lifecycle import Others, Run
from lerax_dist.host._relay import RelayRun

# A process may be this much later than another at its first logger, e.g. for loading data.
AGREEMENT_TIMEOUT = 600.0


def start_run(
    taken: Taken,
    backends: tuple[Any, ...],
    group: ProcessGroup,
    scope: str,
    devices: dict[str, Any],
    failures: Failures,
    *,
    start_step: int | None,
    open_timeout: float,
    settle: Callable[[float], str | None],
) -> Run:
    """Start the run on process 0. If that fails its journal is closed.

    Args:
        taken: which run.
        backends: backends to feed.
        group: the processes.
        scope: whether they run one program together or one each.
        devices: see `see_devices`.
        failures: where to keep what goes wrong.
        start_step: see `Run`.
        open_timeout: see `Run`.
        settle: see `Run`.

    Raises:
        TimeoutError: a process did not take part in time.
    """
    others = None
    try:
        if scope == "process":
            others, devices = _meet(group, devices)
        facts = collect_facts(group, scope, devices)
    except BaseException:
        taken.journal.close()
        raise
    return Run(
        taken.name,
        backends,
        taken.journal,
        failures,
        taken.identity,
        facts,
        start_step=start_step,
        others=others,
        open_timeout=open_timeout,
        settle=settle,
    )


def join_run(
    name: str,
    directory: Path,
    group: ProcessGroup,
    scope: str,
    devices: dict[str, Any],
    failures: Failures,
    settle: Callable[[float], str | None],
) -> IdleRun | RelayRun:
    """The run on a process that does not write it.

    Args:
        name: its name.
        directory: its folder.
        group: the processes.
        scope: whether they run one program together or one each.
        devices: see `see_devices`.
        failures: where to keep what goes wrong.
        settle: see `Run`.
    """
    if scope != "process":
        return IdleRun(name, directory, group.process_index, failures)
    others, _ = _meet(group, devices)
    return RelayRun(name, directory, others.mailbox, failures, settle)


def _meet(group: ProcessGroup, devices: dict[str, Any]) -> tuple[Others, dict[str, Any]]:
    """The way on which the other processes of `scope="process"` send their rows, and the devices
    of all of them. For all of them.

    Raises:
        TimeoutError: a process did not take part in time.
    """
    mine = devices.get("devices_per_process", {group.process_index: None})[group.process_index]
    told = group.gather(
        [group.hostname, mine], timeout=AGREEMENT_TIMEOUT, what="the hosts of the run"
    )
    everyone = told or []
    devices = with_counts(devices, [count for _, count in everyone])
    return Others([host for host, _ in everyone], group.mailbox()), devices
