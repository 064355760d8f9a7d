"""Opening a run: process 0 decides and opens, the others hear of it and write nothing."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from lerax_dist._directory import Taken, take_directory, take_known
from lerax_dist._failures import Failures
from lerax_dist._run import (
    check_hparams,
    check_name,
    check_resume,
    check_seconds,
    check_step,
    choose_log_dir,
    make_name,
)
from lerax_dist._session import Session
from lerax_dist._start import AGREEMENT_TIMEOUT, join_run, start_run
from lerax_dist._state import Past, RunState, read_state
from lerax_dist.backends import NoOpBackend, check_backends, unwrap
from lerax_dist.cluster import (
    ProcessGroup,
    choose_scope,
    current_group,
    current_job,
    describe_devices,
)
from lerax_dist.host._lifecycle import Run
from lerax_dist.host._signals import check_main_thread
from lerax_dist.journal._identity import Identity
from lerax_dist.journal._journal import JournalInUse
from lerax_dist.process_logs import open_logs

# For a run that does not start; a backend that hangs must not keep the error back.
_CLOSE_TIMEOUT = 5.0


def open_session(
    backend: Any,
    name: str | None,
    *,
    env: Any = None,
    policy: Any = None,
    hparams: Any,
    log_dir: str | Path | None,
    group: ProcessGroup | None,
    scope: str | None,
    resume: str,
    start_step: int | None,
    state: RunState | None,
    handle_signals: bool,
    open_timeout: float,
    settle: Callable[[float], str | None],
) -> Session:
    """Open a run on every process of a group.

    Process 0 makes the directory and the journal; the others learn the name from it, or raise
    what it raised. Backends open after that, so a slow one keeps no process waiting.

    Args:
        backend: a backend, or several.
        name: name of the run; `None` to have one made.
        env: environment to name the run after.
        policy: policy to name the run after.
        hparams: hyperparameters.
        log_dir: folder that the run's own folder lies in.
        group: the processes; `None` for those that JAX has joined.
        scope: whether they run one program together or one each, see `choose_scope`.
        resume: what to do with a run of that name that is there already, see `continues`.
        start_step: where a continued run goes on; `None` for where `state` says, else for the
            step of its first row.
        state: where the run stood at a checkpoint; `None` for none.
        handle_signals: whether to watch for SIGTERM and SIGUSR1.
        open_timeout: how long process 0 waits for backends, in seconds.
        settle: see `Run`.

    Raises:
        ValueError: an argument is wrong.
        TypeError: likewise.
        RuntimeError: processes were launched that JAX has not joined; or the run, or a `Required`
            backend, cannot be opened on process 0, then every process raises.
        TimeoutError: a process did not take part in time.
    """
    group = current_group(group, scope)
    scope = choose_scope(group, scope)
    # On every process and before anything that may raise on one only: where JAX has not started
    # the devices yet, they wait for each other here.
    devices = describe_devices(group)
    failures = Failures()
    taken: Taken | None = None
    trouble: Exception | None = None
    backends, required, given, base = (), (), {}, Path()
    try:
        if handle_signals:
            check_main_thread()
        bare, required = unwrap(backend)
        backends, given = check_backends(bare), check_hparams(hparams)
        past = read_state(state)
        if past is not None:
            name, start_step = past.name, past.start_step if start_step is None else start_step
        name = None if name is None else check_name(name)
        _check(resume, start_step, past)
        open_timeout = check_seconds("open_timeout", open_timeout)
        base = choose_log_dir(log_dir, backends)
        if group.is_writer:
            taken = _take(base, name, env, policy, resume, failures, past)
    except Exception as error:
        trouble = error
    if trouble is not None and not group.is_writer:
        raise trouble
    try:
        verdict = group.broadcast(
            _verdict(base, taken, name, scope, trouble) | {"required": bool(required)},
            timeout=AGREEMENT_TIMEOUT,
            what="the name of the run, decided by process 0",
        )
        if trouble is not None and not isinstance(trouble, (OSError, JournalInUse)):
            raise trouble
        if "error" in verdict:
            raise RuntimeError(
                f"process 0 cannot open the run in `log_dir` {str(base)!r} ({verdict['error']})"
            ) from trouble
        _check_scope(scope, verdict["scope"], group)
        identity = Identity(*verdict["identity"])
        directory = Path(verdict["log_dir"]) / verdict["name"]
        # Before the run: exit handlers run in reverse order, so the file has its last words, too.
        logs = open_logs(directory, identity.run_id, group)
    except BaseException:
        if taken is not None:
            taken.journal.close()
        raise
    try:
        if taken is not None:
            run = start_run(
                *(taken, backends, group, scope, devices, failures),
                start_step=start_step,
                open_timeout=open_timeout,
                settle=settle,
            )
        else:
            if None not in (name, verdict["given"]) and name != verdict["given"]:
                failures.record("name", _other_name(name, group.process_index, verdict["given"]))
            backends = tuple(NoOpBackend() for _ in backends)
            run = join_run(verdict["name"], directory, group, scope, devices, failures, settle)
    except BaseException as error:
        logs.close()
        if taken is not None and required:
            # The others wait for this word.
            _tell_required(group, f"process 0 has met {error!r}", open_timeout)
        raise
    session = Session(run, identity, group, scope, backends, given, logs, handle_signals)
    if verdict["required"]:
        unopened = [run.unopened(each) for each in required] if isinstance(run, Run) else []
        _require(session, "; ".join(text for text in unopened if text), open_timeout)
    return session


def _require(session: Session, unopened: str, open_timeout: float) -> None:
    """Raise on every process if a required backend is not open. For all processes.

    Args:
        session: the run, which is closed then.
        unopened: on process 0 what is not open and why, empty if all is.
        open_timeout: how long process 0 waits for backends, in seconds.

    Raises:
        RuntimeError: a required backend is not open.
        TimeoutError: process 0 did not say in time.
    """
    try:
        unopened = _tell_required(session.group, unopened, open_timeout)
        if unopened:
            raise RuntimeError(
                f"`backend` holds a `Required` one that could not be opened ({unopened}). Mend "
                "what it needs, or leave `Required` out to train without it."
            )
    except BaseException:
        session.close(failed=True, timeout=_CLOSE_TIMEOUT)
        raise


def _tell_required(group: ProcessGroup, unopened: str, open_timeout: float) -> str:
    what = "whether the required backends are open"
    return group.broadcast(unopened, timeout=open_timeout + AGREEMENT_TIMEOUT, what=what)


def _check_scope(mine: str, theirs: str, group: ProcessGroup) -> None:
    if mine != theirs:
        raise ValueError(
            f"`scope` must be the same on every process, got {mine!r} on process "
            f"{group.process_index} and {theirs!r} on process 0. Pass the same to all."
        )


def _take(
    base: Path,
    name: str | None,
    env: Any,
    policy: Any,
    resume: str,
    failures: Failures,
    past: Past | None,
) -> Taken:
    base = base.resolve()
    if past is not None:
        return take_known(base, past.name, past.identity, resume=resume, failures=failures)
    job = current_job(os.environ)
    # A made-up name means a run that is there already only in a job that was started again; else
    # the second run of a job would take the first, which failed, for its own.
    again = job is not None and job.restart_count > 0
    return take_directory(
        base,
        name or make_name(env, policy, job.id if job else datetime.now()),
        made=name is None,
        resume="never" if name is None and not again else resume,
        failures=failures,
    )


def _check(resume: Any, start_step: Any, past: Past | None) -> None:
    if check_resume(resume) == "never" and past is not None:
        raise ValueError(
            f'`resume` is "never", but `state` is of the run {past.name!r}, to be continued. To '
            "start a new run from a checkpoint give no `state`."
        )
    if start_step is not None:
        check_step(start_step, "start_step")


def _verdict(
    base: Path, taken: Taken | None, given: str | None, scope: str, trouble: Exception | None
) -> dict[str, Any]:
    """What process 0 tells the others."""
    if taken is None:
        return {"error": f"{type(trouble).__name__}: {trouble}"}
    where = {"name": taken.name, "given": given, "scope": scope, "log_dir": str(base.resolve())}
    return {**where, "identity": list(taken.identity)}


def _other_name(name: str | None, process_index: int, theirs: str) -> str:
    return (
        f"process {process_index} was given {name!r}, process 0 {theirs!r}, which counts. If these "
        "are two runs, some process does not make every logger: make all of them on every process, "
        "in the same order."
    )
