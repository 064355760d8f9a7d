"""Opening a run: process 0 decides and opens, the others learn the decision or raise alike."""

import itertools
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from lerax_dist._config import CheckedConfig, RunConfig
from lerax_dist._facts import collect_facts
from lerax_dist._failures import Failures
from lerax_dist._run_name import make_name
from lerax_dist.backends import NoOpBackend
from lerax_dist.cluster import (
    Mailbox,
    ProcessGroup,
    choose_scope,
    current_group,
    current_job,
    describe_devices,
    with_counts,
)
from lerax_dist.host._run import Run, RunInfo, WriterParts
from lerax_dist.journal import Event, Identity, Journal, JournalInUse, take_identity
from lerax_dist.process_logs import RunLogs

# A process may make its first logger this much later than another, e.g. since it loads data.
_AGREEMENT_TIMEOUT = 600.0
# Closing a run that does not start; a backend that hangs must not delay the error.
_CLOSE_TIMEOUT = 5.0


class Decision(NamedTuple):
    """What process 0 decides, and broadcasts as JSON.

    Attributes:
        error: why the run cannot be opened; empty if it can.
        name: name of the run.
        given: the name that process 0 was given; `None` if it was generated.
        log_dir: folder of the runs, absolute.
        identity: run id and incarnation.
        scope: scope on process 0.
        has_required: whether some backends are required.
    """

    error: str
    name: str = ""
    given: str | None = None
    log_dir: str = ""
    identity: tuple[str, int] = ("", 0)
    scope: str = ""
    has_required: bool = False

    @classmethod
    def read(cls, fields: Any) -> Self:
        """The decision that was broadcast."""
        decision = cls(*fields)
        return decision._replace(identity=tuple(decision.identity))


class AcquiredRun(NamedTuple):
    """A run that this process may write.

    Attributes:
        name: its name.
        journal: its journal, open and locked.
        identity: its id, this incarnation counted.
    """

    name: str
    journal: Journal
    identity: Identity


def open_run(
    config: RunConfig,
    *,
    env: Any = None,
    policy: Any = None,
    wait_for_callbacks: Callable[[float], str | None],
) -> Run:
    """Open a run on every process of a group.

    Process 0 makes the directory and the journal and broadcasts the decision; the others follow it,
    or raise what it raised. Backends open after that, so a slow one delays no other process.

    Args:
        config: how to open it.
        env: environment to name the run after.
        policy: policy to name the run after.
        wait_for_callbacks: see `Run`.

    Raises:
        ValueError: if an argument is wrong.
        TypeError: if an argument has the wrong type.
        RuntimeError: if JAX has not joined processes that were launched; or if the run, or a
            `Required` backend, cannot be opened on process 0, then on every process.
        TimeoutError: if a process did not take part in time.
    """
    group = current_group(config.group, config.scope)
    scope = choose_scope(group, config.scope)
    # On every process and before anything that may raise on one only: where JAX has not started
    # the devices yet, the processes wait for each other here.
    devices = describe_devices(group)
    failures = Failures()
    acquired: AcquiredRun | None = None
    checked: CheckedConfig | None = None
    error: Exception | None = None
    try:
        checked = config.check()
        if group.is_writer:
            acquired = _acquire(checked, env, policy, failures)
    except Exception as caught:
        error = caught
    if error is not None and not group.is_writer:
        raise error
    decision = _agree(group, scope, checked, acquired, error)
    assert checked is not None
    try:
        run = _make_run(
            decision, config, checked, acquired, group, devices, failures, wait_for_callbacks
        )
        run.start(checked.open_timeout)
    except BaseException as caught:
        if acquired is not None and decision.has_required:
            # The others wait for this answer.
            _broadcast_unopened(group, f"process 0 failed: {caught!r}", checked.open_timeout)
        raise
    if decision.has_required:
        _check_required(run, checked)
    return run


def _agree(
    group: ProcessGroup,
    scope: str,
    checked: CheckedConfig | None,
    acquired: AcquiredRun | None,
    error: Exception | None,
) -> Decision:
    """The decision of process 0; raises on every process if it is an error.

    Args:
        group: the processes.
        scope: scope of this process.
        checked: arguments of this process; `None` if there was an error on process 0.
        acquired: the run, on process 0.
        error: what went wrong on process 0.
    """
    mine = Decision(f"{type(error).__name__}: {error}")
    if acquired is not None and checked is not None:
        mine = Decision(
            "",
            acquired.name,
            checked.name,
            str(checked.log_dir.resolve()),
            acquired.identity,
            scope,
            bool(checked.required),
        )
    try:
        decision = Decision.read(
            group.broadcast(
                list(mine),
                timeout=_AGREEMENT_TIMEOUT,
                what="the name of the run, decided by process 0",
            )
        )
        if error is not None and not isinstance(error, (OSError, JournalInUse)):
            raise error
        if decision.error:
            folder = "" if checked is None else f" in `log_dir` {str(checked.log_dir)!r}"
            raise RuntimeError(
                f"process 0 cannot open the run{folder} ({decision.error})"
            ) from error
        if scope != decision.scope:
            raise ValueError(
                f"`scope` must be the same on every process, got {scope!r} on process "
                f"{group.process_index} and {decision.scope!r} on process 0. Pass the same to all."
            )
        return decision
    except BaseException:
        if acquired is not None:
            acquired.journal.close()
        raise


def _make_run(
    decision: Decision,
    config: RunConfig,
    checked: CheckedConfig,
    acquired: AcquiredRun | None,
    group: ProcessGroup,
    devices: dict[str, Any],
    failures: Failures,
    wait_for_callbacks: Callable[[float], str | None],
) -> Run:
    """The run on this process, not started yet. If that fails its journal is closed."""
    directory = Path(decision.log_dir) / decision.name
    identity = Identity(*decision.identity)
    info = RunInfo(decision.name, directory, identity, decision.scope, group, checked.hparams)
    try:
        # Before the run: exit handlers run in reverse order, so the log has the run's last lines.
        logs = RunLogs(directory, identity.run_id, group)
        try:
            writer = None
            backends = checked.backends
            hosts, mailbox, devices = _meet_peers(group, decision.scope, devices)
            if acquired is not None:
                facts = collect_facts(group, decision.scope, devices)
                writer = WriterParts(acquired.journal, facts, checked.start_step, hosts)
            else:
                _check_name(checked.name, decision.given, group.process_index, failures)
                backends = tuple(NoOpBackend() for _ in backends)
            return Run(
                info,
                backends,
                writer,
                mailbox,
                failures,
                logs=logs,
                handle_signals=config.handle_signals,
                wait_for_callbacks=wait_for_callbacks,
            )
        except BaseException:
            logs.close()
            raise
    except BaseException:
        if acquired is not None:
            acquired.journal.close()
        raise


def _meet_peers(
    group: ProcessGroup, scope: str, devices: dict[str, Any]
) -> tuple[tuple[str, ...], Mailbox | None, dict[str, Any]]:
    """Hosts of the processes whose rows are merged, their channel to process 0, and the devices of
    all of them. For all processes."""
    if scope != "process" or group.process_count == 1:
        return (group.hostname,), None, devices
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


def _check_required(run: Run, checked: CheckedConfig) -> None:
    """Raise on every process if a required backend is not open. For all processes.

    Raises:
        RuntimeError: if a required backend is not open.
        TimeoutError: if process 0 did not answer in time.
    """
    try:
        reasons = [run.why_unopened(backend) for backend in checked.required]
        unopened = "; ".join(reason for reason in reasons if reason)
        unopened = _broadcast_unopened(run.info.group, unopened, checked.open_timeout)
        if unopened:
            raise RuntimeError(
                f"a `Required` backend failed to open ({unopened}). Fix the cause, or drop "
                "`Required` to train without it."
            )
    except BaseException:
        run.close(failed=True, timeout=_CLOSE_TIMEOUT)
        raise


def _broadcast_unopened(group: ProcessGroup, unopened: str, open_timeout: float) -> str:
    what = "whether the required backends are open"
    return group.broadcast(unopened, timeout=open_timeout + _AGREEMENT_TIMEOUT, what=what)


def _acquire(checked: CheckedConfig, env: Any, policy: Any, failures: Failures) -> AcquiredRun:
    """The run that process 0 may write, and its name."""
    base = checked.log_dir.resolve()
    if checked.restored is not None:
        return acquire_known_run(
            base,
            checked.restored.name,
            checked.restored.identity,
            resume=checked.resume,
            failures=failures,
        )
    job = current_job(os.environ)
    # A generated name means a run that exists only in a job that was restarted; else the second run
    # of a job would continue the first, which failed.
    is_restarted = job is not None and job.restart_count > 0
    return acquire_run(
        base,
        checked.name or make_name(env, policy, job.id if job else datetime.now()),
        is_generated=checked.name is None,
        resume="never" if checked.name is None and not is_restarted else checked.resume,
        failures=failures,
    )


def acquire_run(
    base: Path, name: str, *, is_generated: bool, resume: str, failures: Failures
) -> AcquiredRun:
    """Acquire the run `name`, or the first of `name_2`, `name_3`, ... that may be written.

    Args:
        base: folder of the runs.
        name: name of the run.
        is_generated: whether the name was generated; then a run of this name that another logger
            writes is skipped.
        resume: see `RunConfig`.
        failures: where the journal records what fails.

    Raises:
        JournalInUse: if another logger is writing the run of that name.
        ValueError: if `resume` is `"must"`, and there is no run to continue.
        OSError: if the directory or a file in it cannot be made.
    """
    if resume == "must" and not (base / name / "journal.jsonl").exists():
        raise ValueError(
            f'`resume` is "must", but there is no run {name!r} in {base}. '
            'Give the name and `log_dir` of the run to continue, or use "auto".'
        )
    for attempt in itertools.count(1):
        unique = name if attempt == 1 else f"{name}_{attempt}"
        directory = base / unique
        directory.mkdir(parents=True, exist_ok=True)
        try:
            journal = Journal(directory / "journal.jsonl", failures)
        except JournalInUse:
            if not is_generated:
                raise
            continue
        if _continues(resume, _last_state(journal)):
            try:
                identity = take_identity(directory, continues=journal.end > 0)
            except OSError:
                journal.close()
                raise
            return AcquiredRun(unique, journal, identity)
        journal.close()
    raise AssertionError


def acquire_known_run(
    base: Path, name: str, known: Identity, *, resume: str, failures: Failures
) -> AcquiredRun:
    """Acquire the run of a checkpoint, however it has ended.

    Args:
        base: folder of the runs.
        name: name of the run.
        known: its identity when the checkpoint was made.
        resume: whether it `"must"` exist; else a new folder is made for it if it does not.
        failures: where the journal records what fails.

    Raises:
        JournalInUse: if another logger is writing the run.
        ValueError: if the folder holds another run, or the run does not exist and must.
        OSError: if the directory or a file in it cannot be made.
    """
    directory = base / name
    if not (directory / "journal.jsonl").exists():
        lost = f"the run {name!r} of `state` is not in {base}"
        if resume == "must":
            raise ValueError(
                f'`resume` is "must", but {lost}. Give the `log_dir` it was written to.'
            )
        failures.record(
            "state", f"{lost}; it continues in a new folder there, without its older rows"
        )
    directory.mkdir(parents=True, exist_ok=True)
    journal = Journal(directory / "journal.jsonl", failures)
    try:
        identity = take_identity(directory, continues=True, known=known)
        return AcquiredRun(name, journal, identity)
    except (OSError, ValueError):
        journal.close()
        raise


def _continues(resume: str, last_state: str | None) -> bool:
    """Whether to write a run that ended in a state, `None` if it holds no record yet."""
    if last_state is None:
        return True
    if resume == "auto":
        return last_state != "finished"
    return resume == "must"


def _last_state(journal: Journal) -> str | None:
    match journal.last:
        case None:
            return None
        case Event(kind="close"):
            return str(journal.last.body.get("state"))
        case _:
            return "interrupted"
