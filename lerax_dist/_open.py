"""Opening a run: process 0 decides and opens, the others learn the decision or raise alike."""

import contextlib
import itertools
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lerax_dist._config import CheckedConfig, RunConfig
from lerax_dist._facts import collect_facts
from lerax_dist._failures import Failures
from lerax_dist._run_name import make_name
from lerax_dist.backends import NoOpBackend, as_backend
from lerax_dist.cluster import (
    Mailbox,
    ProcessGroup,
    SoloGroup,
    choose_scope,
    current_group,
    current_job,
    describe_devices,
    hint_of_launch,
    imports_main_again,
    with_counts,
)
from lerax_dist.host._journal_outlet import JournalOutlet
from lerax_dist.host._peers import PeerOutlet
from lerax_dist.host._queue import PAUSE, RowQueue
from lerax_dist.host._run import Run, RunInfo
from lerax_dist.host._worker import AbstractOutlet
from lerax_dist.journal import JOURNAL, Event, Identity, Journal, JournalInUse, take_identity
from lerax_dist.journal._bucket import has_journal, mirrored_url
from lerax_dist.process_logs import RunLogs

# A process may make its first logger this much later than another, e.g. since it loads data.
_AGREEMENT_TIMEOUT = 600.0
# Closing a run that does not start; a backend that hangs must not delay the error.
_CLOSE_TIMEOUT = 5.0
# How long a process that does not write batches its rows, in seconds; messages of all a second.
_PEER_PAUSE, _MAX_PAUSE = 1.0, 5.0
_MAX_MESSAGES = 100.0
_ON_ONE_HOST = (
    "If `log_dir` is a disk of one host, its rows are on the host that the run was on before: use "
    "a folder that all hosts share, or copy the folder of the run here before the start. "
    '`resume="must"` makes this an error'
)
# The runs of this process; one that is open is kept by its threads and its exit handler.
_RUNS: "weakref.WeakSet[Run]" = weakref.WeakSet()


class Decision(NamedTuple):
    """What process 0 decides, and broadcasts as JSON.

    Attributes:
        error: why the run cannot be opened; empty if it can.
        name: name of the run.
        given: the name that process 0 was given; `None` if it was generated.
        directory: folder of the run, absolute.
        identity: run id and incarnation.
        scope: scope on process 0.
        has_required: whether some backends are required.
    """

    error: str
    name: str = ""
    given: str | None = None
    directory: str = ""
    identity: Identity = Identity("", 0)
    scope: str = ""
    has_required: bool = False


class AcquiredRun(NamedTuple):
    """A run that this process may write, its journal open and locked, this incarnation counted."""

    name: str
    identity: Identity
    journal: Journal


def open_run(
    config: RunConfig,
    *,
    named_after: Sequence[Any] = (),
    logs_host_rows: bool = False,
    wait_for_callbacks: Callable[[float], str | None],
) -> Run:
    """Open a run on every process of a group.

    Process 0 makes the directory and the journal and broadcasts the decision; the others follow it,
    or raise what it raised. Backends open after that, so a slow one delays no other process.

    Args:
        config: how to open it.
        named_after: what a generated name is made of.
        logs_host_rows: whether rows hold values of one process, which are merged or compared.
        wait_for_callbacks: see `Run`.

    Raises:
        ValueError: if an argument is wrong.
        TypeError: if an argument has the wrong type.
        RuntimeError: if JAX has not joined processes that were launched; or if the run, or a
            `Required` backend, cannot be opened on process 0, then on every process.
        TimeoutError: if a process did not take part in time.
    """
    if imports_main_again():
        return _open_nothing(config)
    group = current_group(config.group, config.scope)
    scope = choose_scope(group, config.scope)
    # On every process and before anything that may raise on one only: where JAX has not started
    # the devices yet, the processes wait for each other here.
    devices = describe_devices(group)
    failures = Failures()
    hint = hint_of_launch(os.environ) if group.launcher == "solo" else ""
    if hint and config.group is None:
        failures.record(
            "launch",
            f"{hint} looks like one of several processes, but this one has joined no other, so "
            'each writes a run of its own. Join them first by `initialize("HOST:PORT", '
            "num_processes, process_id)`. For independent runs pass `group=SoloGroup()`",
        )
    # `undo` closes what is open if the run cannot be made.
    with contextlib.ExitStack() as undo:
        checked, decision, journal = _decide(group, scope, config, named_after, failures, undo)
        name, directory, identity = decision.name, Path(decision.directory), decision.identity
        info = RunInfo(name, directory, identity, scope, group, checked.hparams, checked.backends)
        try:
            # Before the run: exit handlers run in reverse order, so the log has its last lines.
            logs = RunLogs(directory, identity.run_id, group)
            undo.callback(logs.close)
            peer_pause = min(max(_PEER_PAUSE, group.process_count / _MAX_MESSAGES), _MAX_PAUSE)
            queue = RowQueue(failures, pause=PAUSE if group.is_writer else peer_pause)
            hosts, mailbox, devices = _meet_peers(group, scope, devices, logs_host_rows)
            peers = (hosts, mailbox)
            outlet = _make_outlet(info, checked, journal, peers, devices, queue, failures)
            run = Run(
                info,
                queue,
                outlet,
                failures,
                logs=logs,
                handle_signals=checked.handle_signals,
                wait_for_callbacks=wait_for_callbacks,
            )
            _RUNS.add(run)
            # Ctrl-C, for instance: the caller never gets the run, so it could not close it.
            undo.callback(run.close, failed=True, timeout=_CLOSE_TIMEOUT)
            run.start(checked.open_timeout)
        except BaseException as caught:
            if decision.has_required and journal is not None:
                # The others wait for this answer.
                _broadcast_unopened(group, f"process 0 failed: {caught!r}", checked.open_timeout)
            raise
        if decision.has_required:
            _check_required(run, outlet, checked)
        undo.pop_all()
    return run


def close_runs(timeout: float = 60.0) -> tuple[str, ...]:
    """Close every run that this process has open, as failed.

    For loggers that are lost, since a function or a notebook cell has raised: their runs can then
    be opened again, and continue.

    Args:
        timeout: how long to take at most for each, in seconds.

    Returns:
        The names of these runs.

    Example:
        ```python
        Logger(NoOpBackend(), "lost", log_dir="logs")
        print(close_runs())  # ('lost',)
        ```
    """
    runs = [*_RUNS]
    names = tuple(run.info.name for run in runs if not run.is_closed)
    for run in runs:
        run.close(failed=True, timeout=timeout)
    return names


def _open_nothing(config: RunConfig) -> Run:
    """A run that writes nothing: the one of the parent process is meant."""
    checked, failures = config.check(), Failures()
    failures.record(
        "multiprocessing",
        "a worker process imports the main module again and makes a logger, which writes nothing. "
        'Make the logger under `if __name__ == "__main__":`',
    )
    backends = tuple(NoOpBackend() for _ in checked.backends)
    name, directory = checked.name or "", Path(checked.log_dir)
    info = RunInfo(
        *(name, directory, Identity("", 0), "global", SoloGroup(), checked.hparams, backends)
    )
    return Run(
        *(info, RowQueue(failures, pause=_PEER_PAUSE), None, failures),
        logs=None,
        handle_signals=False,
        wait_for_callbacks=lambda timeout: None,
    )


def _decide(
    group: ProcessGroup,
    scope: str,
    config: RunConfig,
    named_after: Sequence[Any],
    failures: Failures,
    undo: contextlib.ExitStack,
) -> tuple[CheckedConfig, Decision, Journal | None]:
    """The arguments for this process, checked; the decision of process 0; and on it the journal.

    If process 0 cannot open the run this raises on every process.
    """
    checked: CheckedConfig | None = None
    journal: Journal | None = None
    error: Exception | None = None
    mine = Decision("")
    try:
        checked = config.check()
        if group.is_writer:
            name, identity, journal = _acquire(checked, named_after, failures)
            undo.callback(journal.close)
            directory, has_required = str(journal.path.parent), bool(checked.required)
            mine = Decision("", name, checked.name, directory, identity, scope, has_required)
    except Exception as caught:
        if not group.is_writer:
            raise
        error, mine = caught, Decision(f"{type(caught).__name__}: {caught}")
    what = "the name of the run, decided by process 0"
    decision = Decision(*group.broadcast(list(mine), timeout=_AGREEMENT_TIMEOUT, what=what))
    if error is not None and not isinstance(error, (OSError, JournalInUse)):
        raise error
    if decision.error:
        at = "" if checked is None else mirrored_url(checked.log_dir) or str(checked.log_dir)
        folder = at and f" in `log_dir` {at!r}"
        raise RuntimeError(f"process 0 cannot open the run{folder} ({decision.error})") from error
    if scope != decision.scope:
        raise ValueError(
            f"`scope` must be the same on every process, got {scope!r} on process "
            f"{group.process_index} and {decision.scope!r} on process 0. Pass the same to all."
        )
    assert checked is not None
    if journal is None:
        checked = checked._replace(backends=tuple(NoOpBackend() for _ in checked.backends))
        _check_name(checked.name, decision.given, group.process_index, failures)
    return checked, decision._replace(identity=Identity(*decision.identity)), journal


def _make_outlet(
    info: RunInfo,
    checked: CheckedConfig,
    journal: Journal | None,
    peers: tuple[Sequence[str | None], Mailbox | None],
    devices: dict[str, Any],
    queue: RowQueue,
    failures: Failures,
) -> AbstractOutlet | None:
    """Where this process writes, if it does; on process 0 the first events are queued for it."""
    group, identity = info.group, info.identity
    hosts, mailbox = peers
    if journal is None:
        merges_all = info.scope == "process"
        return None if mailbox is None else PeerOutlet(mailbox, failures, merges_all=merges_all)
    body = {"name": info.name, "pid": os.getpid(), "host": group.hostname, **identity._asdict()}
    body |= collect_facts(group, info.scope, devices)
    queue.put(Event(time.time(), "open", body))
    return JournalOutlet(
        info.name,
        identity,
        journal,
        info.backends,
        queue,
        failures,
        mailbox=mailbox,
        hosts=hosts,
        merges_all=info.scope == "process",
        position=checked.position if identity.incarnation > 1 else None,
        step_offset=checked.step_offset,
    )


def _meet_peers(
    group: ProcessGroup, scope: str, devices: dict[str, Any], logs_host_rows: bool
) -> tuple[Sequence[str | None], Mailbox | None, dict[str, Any]]:
    """Hosts of the processes that send rows, their channel to process 0, and the devices of all of
    them. For all processes."""
    if group.process_count == 1 or not (scope == "process" or logs_host_rows):
        return (), None, devices
    if scope == "global":
        # Process 0 waits for no other here, unless the group is MPI's.
        mailbox = group.mailbox(timeout=_AGREEMENT_TIMEOUT)
        return group.hosts if group.is_writer else (), mailbox, devices
    counts = devices.get("devices_per_process", {group.process_index: None})
    gathered = group.gather(
        [group.hostname, counts[group.process_index]],
        timeout=_AGREEMENT_TIMEOUT,
        what="the hosts of the run",
    )
    # Other processes than 0 gather nothing, and need neither.
    everyone = gathered or []
    devices = with_counts(devices, [count for _, count in everyone])
    hosts = tuple(host for host, _ in everyone)
    return hosts, group.mailbox(timeout=_AGREEMENT_TIMEOUT), devices


def _check_name(
    name: str | None, given: str | None, process_index: int, failures: Failures
) -> None:
    if None not in (name, given) and name != given:
        failures.record(
            "name",
            f"process {process_index} passed name {name!r} but process 0 passed {given!r}; using "
            f"{given!r}. If these are two runs: construct every logger on every process, in the "
            "same order.",
        )


def _check_required(run: Run, outlet: AbstractOutlet | None, checked: CheckedConfig) -> None:
    """Raise on every process if a required backend is not open. For all processes.

    Raises:
        RuntimeError: if a required backend is not open.
        TimeoutError: if process 0 did not answer in time.
    """
    unopened = ""
    if outlet is not None:
        reasons = [outlet.why_unopened(backend) for backend in checked.required]
        unopened = "; ".join(reason for reason in reasons if reason)
    unopened = _broadcast_unopened(run.info.group, unopened, checked.open_timeout)
    if unopened:
        raise RuntimeError(
            f"a `Required` backend failed to open ({unopened}). Fix the cause, or drop "
            "`Required` to train without it."
        )


def _broadcast_unopened(group: ProcessGroup, unopened: str, open_timeout: float) -> str:
    what = "whether the required backends are open"
    return group.broadcast(unopened, timeout=open_timeout + _AGREEMENT_TIMEOUT, what=what)


def _acquire(checked: CheckedConfig, named_after: Sequence[Any], failures: Failures) -> AcquiredRun:
    """The run that process 0 may write.

    Raises:
        JournalInUse: if another logger is writing it.
        ValueError: if there is no such run and must be, or its folder holds another.
        OSError: if its directory or a file in it cannot be made.
    """
    base, resume = checked.log_dir.resolve(), checked.resume
    ids = (as_backend(backend).new_run_id() for backend in checked.backends)
    new_id = next(filter(None, ids), None)
    if checked.restored is not None:
        name, identity, *_ = checked.restored
        return _acquire_restored(base, name, identity, resume, failures)
    job = current_job(os.environ)
    # A generated name means a run that exists only in a job that was restarted; else the second run
    # of a job would continue the first, which failed.
    is_restarted = job is not None and job.restart_count > 0
    if checked.name is None and not is_restarted and resume != "must":
        resume = "never"
    name = checked.name or make_name(named_after, job.id if job else datetime.now())
    if resume == "must" and not has_journal(base / name):
        raise ValueError(
            f'`resume` is "must", but there is no run {name!r} in {mirrored_url(base) or base}. '
            'Give the name and `log_dir` of the run to continue, or use "auto".'
        )
    for attempt in itertools.count(1):
        unique = name if attempt == 1 else f"{name}_{attempt}"
        try:
            journal = _open_journal(base / unique, failures)
        except JournalInUse:
            # One whose name was generated may be another logger's of this process.
            if checked.name is not None:
                raise
            continue
        if _may_write(journal, resume):
            if not journal.end and (resume == "allow" or is_restarted and attempt == 1):
                missing = f"there is no run {unique!r} in {base} on host {socket.gethostname()}"
                logging.getLogger("lerax_dist").info("%s; it is created", missing)
                if is_restarted:
                    failures.record("resume", f"{missing}; it is created. {_ON_ONE_HOST}")
            return _acquired(unique, journal, continues=journal.end > 0, new_id=new_id)
        journal.close()
    raise AssertionError


def _acquire_restored(
    base: Path, name: str, known: Identity, resume: str, failures: Failures
) -> AcquiredRun:
    """The run of a checkpoint, however it has ended."""
    if not has_journal(base / name):
        lost = f"the run {name!r} of `state` is not in {mirrored_url(base) or base}"
        if resume == "must":
            raise ValueError(
                f'`resume` is "must", but {lost}. Give the `log_dir` it was written to.'
            )
        failures.record(
            "state",
            f"{lost} on host {socket.gethostname()}; it continues in a new folder there, without "
            f"its older rows. {_ON_ONE_HOST}",
        )
    journal = _open_journal(base / name, failures)
    return _acquired(name, journal, continues=True, known=known)


def _open_journal(directory: Path, failures: Failures) -> Journal:
    directory.mkdir(parents=True, exist_ok=True)
    return Journal(directory / JOURNAL, failures)


def _acquired(
    name: str,
    journal: Journal,
    *,
    continues: bool,
    known: Identity | None = None,
    new_id: str | None = None,
) -> AcquiredRun:
    folder = journal.path.parent
    try:
        identity = take_identity(folder, continues=continues, known=known, new_id=new_id)
        return AcquiredRun(name, identity, journal)
    except (OSError, ValueError):
        journal.close()
        raise


def _may_write(journal: Journal, resume: str) -> bool:
    """Whether to write a run with such a last record."""
    match journal.last:
        case None:
            return True
        case Event(kind="close", body={"state": "finished"}):
            return resume in ("allow", "must")
    return resume != "never"
