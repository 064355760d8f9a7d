"""A run from its opening to its close: process 0 decides and writes, the others hear of it."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, final

from lerax_dist._directory import Taken, take_directory
from lerax_dist._run import (
    check_hparams,
    check_name,
    check_resume,
    check_step,
    choose_log_dir,
    make_name,
)
from lerax_dist.backends import NoOpBackend
from lerax_dist.backends._base import check_backends
from lerax_dist.cluster import ProcessGroup, current_group
from lerax_dist.host._failures import Failures
from lerax_dist.host._identity import Identity
from lerax_dist.host._lifecycle import Run
from lerax_dist.host._signals import SignalWatch
from lerax_dist.host._sink import Deliver, Unpack

# A process may be this much later than another at its first logger, e.g. for loading data.
_AGREEMENT_TIMEOUT = 600.0


@final
class IdleRun:
    """A run on a process that does not write it: the same calls, no thread, no file."""

    def __init__(self, name: str, directory: Path, process_index: int, failures: Failures) -> None:
        self.name = name
        self.directory = directory
        self.failures = failures
        self.sink = _StraySink(process_index, self.failures)
        self.closed = False

    def log(self, row: Any) -> None:
        """Process 0 writes the row."""

    def put(self, event: Any) -> None:
        """Process 0 writes the event."""

    def sync_soon(self) -> None:
        """Nothing is written here."""

    def flush(self, timeout: float) -> None:
        """Nothing is pending here."""

    def close(self, state: str, timeout: float) -> None:
        """Nothing is open here."""
        self.closed = True


@final
class _StraySink:
    """Says so if rows arrive at a process that does not write; they have nowhere to go."""

    def __init__(self, process_index: int, failures: Failures) -> None:
        self._process_index = process_index
        self._failures = failures

    def rows(self, unpack: Unpack, stride: int) -> Deliver:
        """What takes the rows of one schema."""

        def deliver(part: int, parts: int, payload: Any) -> None:
            self._failures.keep(
                "callback",
                f"a row reached process {self._process_index}, but process 0 writes; it is not "
                "logged. The step runs as a program of this process alone, or the first device of "
                "its mesh is not one of process 0. Compile one program over a mesh of "
                "`jax.devices()` in their order.",
            )

        return deliver

    def start(
        self,
        stride: int,
        total_timesteps: int | None,
        total_iterations: int,
        hparams: dict[str, Any],
    ) -> Deliver:
        """What takes the start of a training: process 0 hears of it too."""
        return lambda part, parts, payload: None


@final
class Session:
    """A run as one process sees it. Equal only to itself, so it never causes a retrace.

    Attributes:
        run: the run; idle on processes that do not write.
        identity: who the run is.
        group: the processes that log together.
        backends: the backends that this process feeds.
        hparams: hyperparameters given by the user.
        signals: what watches for the end of the job; `None` if nobody asked for it.
    """

    def __init__(
        self,
        run: Run | IdleRun,
        identity: Identity,
        group: ProcessGroup,
        backends: tuple[Any, ...],
        hparams: dict[str, Any],
        handle_signals: bool,
    ) -> None:
        self.run = run
        self.identity = identity
        self.group = group
        self.backends = backends
        self.hparams = hparams
        self.signals = SignalWatch(run.sync_soon) if handle_signals else None
        # From another process, when all were asked.
        self._heard = False
        if self.signals is not None:
            self.signals.install()

    def preempted(self, timeout: float) -> bool:
        """Whether any process has been told to end; the same answer on all that ask together.

        Args:
            timeout: how long to wait for the other processes, in seconds.

        Raises:
            TimeoutError: a process did not ask.
        """
        if self.group.process_count > 1:
            told = self.group.gather(self._told, timeout=timeout, what="`preempted`")
            answer = any(told or ())
            what = "the answer to `preempted`"
            self._heard = self.group.broadcast(answer, timeout=timeout, what=what)
        return self._told

    @property
    def _told(self) -> bool:
        return self._heard or (self.signals is not None and self.signals.seen)

    def close(self, failed: bool, timeout: float) -> None:
        """Close the run in the state that fits, and give the signals back."""
        state = "failed" if failed else "preempted" if self._told else "finished"
        self.run.close(state, timeout)
        if self.signals is not None:
            self.signals.remove()


def open_session(
    backend: Any,
    name: str | None,
    *,
    env: Any = None,
    policy: Any = None,
    hparams: Any,
    log_dir: str | Path | None,
    group: ProcessGroup | None,
    resume: str,
    start_step: int | None,
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
        resume: what to do with a run of that name that is there already, see `continues`.
        start_step: where a continued run goes on; `None` for the step of its first row.
        handle_signals: whether to watch for SIGTERM and SIGUSR1.
        open_timeout: how long process 0 waits for backends, in seconds.
        settle: see `Run`.

    Raises:
        ValueError: an argument is wrong.
        TypeError: likewise.
        RuntimeError: processes were launched that JAX has not joined; or the run cannot be opened
            on process 0, then every process raises.
        TimeoutError: a process did not take part in time.
    """
    group = current_group(group)
    failures = Failures()
    taken: Taken | None = None
    trouble: Exception | None = None
    backends, given, base = (), {}, Path()
    try:
        backends, given = check_backends(backend), check_hparams(hparams)
        _check(name, resume, start_step)
        base = choose_log_dir(log_dir, backends)
        if group.is_writer:
            taken = _take(base, name, env, policy, resume, failures)
    except Exception as error:
        trouble = error
    if trouble is not None and not group.is_writer:
        raise trouble
    verdict = group.broadcast(
        _verdict(base, taken, name, trouble),
        timeout=_AGREEMENT_TIMEOUT,
        what="the name of the run, decided by process 0",
    )
    if isinstance(trouble, (ValueError, TypeError)):
        raise trouble
    if "error" in verdict:
        raise RuntimeError(
            f"process 0 cannot open the run in `log_dir` {str(base)!r} ({verdict['error']})"
        ) from trouble
    identity = Identity(*verdict["identity"])
    if taken is None:
        if None not in (name, verdict["given"]) and name != verdict["given"]:
            failures.keep("name", _other_name(name, group.process_index, verdict["given"]))
        directory = Path(verdict["log_dir"]) / verdict["name"]
        idle = IdleRun(verdict["name"], directory, group.process_index, failures)
        none = tuple(NoOpBackend() for _ in backends)
        return Session(idle, identity, group, none, given, handle_signals)
    run = Run(
        taken.name,
        backends,
        taken.journal,
        failures,
        identity,
        {"process_count": group.process_count, "launcher": group.launcher},
        start_step=start_step,
        open_timeout=open_timeout,
        settle=settle,
    )
    return Session(run, identity, group, backends, given, handle_signals)


def _take(
    base: Path, name: str | None, env: Any, policy: Any, resume: str, failures: Failures
) -> Taken:
    job = os.environ.get("SLURM_JOB_ID")
    # A made-up name means a run that is there already only in a job that was started again; else
    # the second run of a job would take the first, which failed, for its own.
    again = job is not None and int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    return take_directory(
        base.resolve(),
        name or make_name(env, policy, job or datetime.now()),
        made=name is None,
        resume="never" if name is None and not again else resume,
        failures=failures,
    )


def _check(name: Any, resume: Any, start_step: Any) -> None:
    if name is not None:
        check_name(name)
    check_resume(resume)
    if start_step is not None:
        check_step(start_step, "start_step")


def _verdict(
    base: Path, taken: Taken | None, given: str | None, trouble: Exception | None
) -> dict[str, Any]:
    """What process 0 tells the others."""
    if taken is None:
        return {"error": f"{type(trouble).__name__}: {trouble}"}
    where = {"name": taken.name, "given": given, "log_dir": str(base.resolve())}
    return {**where, "identity": list(taken.identity)}


def _other_name(name: str | None, process_index: int, theirs: str) -> str:
    return (
        f"process {process_index} was given {name!r}, process 0 {theirs!r}, which counts. If these "
        "are two runs, some process does not make every logger: make all of them on every process, "
        "in the same order."
    )
