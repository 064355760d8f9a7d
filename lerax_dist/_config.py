"""What both loggers have in common: how a run is opened, documented and checked once."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, final

from lerax_dist._hparams import check_hparams
from lerax_dist._run_name import check_name, choose_log_dir
from lerax_dist._state import RestoredRun, RunState, read_state
from lerax_dist.backends import AbstractLoggingBackend, Required, check_backends
from lerax_dist.cluster import ProcessGroup
from lerax_dist.host._rewind import Position
from lerax_dist.host._signals import check_main_thread

# Checkpoints, TensorBoard and NumPy have 64 bits for a step.
MAX_STEP = 1 << 63

Backends = AbstractLoggingBackend | Required | Sequence[AbstractLoggingBackend | Required]


@final
@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How a run is opened: the arguments that `Logger` and `LoggingCallback` share.

    All processes of a launch pass the same. Both loggers make one of their arguments; you never
    need to.

    Attributes:
        backend: where to log to: a backend, or several. One that fails to open is disabled with a
            warning; one in `Required(...)` is an error then.
        name: name of the run, a relative path inside `log_dir`; `None` to generate one from policy,
            environment and time (under SLURM from the job id). Process 0 decides, all agree.
        hparams: hyperparameters to log: a mapping, dataclass, namespace, module or configuration
            object. Nested names are joined with a dot; functions, classes and dtypes are written by
            their names, arrays of more than 64 numbers by dtype and shape. Strings that are secrets
            by their names (`*api_key*`, `*password*`, `*_token`) are masked.
        log_dir: local folder in which that of the run is made (`~` is expanded); `None` for that of
            the first backend that has one, else `logs`.
        group: the processes that log together; `None` for those that JAX has joined.
        scope: `"global"` for one program over the devices of all processes: process 0 writes;
            `"process"` for one program in each process (independent learners, a population), whose
            rows process 0 merges: the same numbers as one program would give. `None` for
            `"global"` if JAX has joined the processes and `"process"` if not. To log each process
            on its own pass `group=SoloGroup()`.
        resume: what to do if there is a run of that name: `"auto"` continues one that has not
            finished, and else takes `name_2` and so on; `"allow"` continues it, finished or not;
            `"must"` does so, too, and is an error if there is no such run; `"never"` takes a new
            name.
        start_step: step at which a resumed run continues, e.g. that of a checkpoint. Rows of
            earlier incarnations at this step or after it are superseded: kept, marked in the
            journal, hidden by backends that can. `None` for what came after `state`; without one
            the first row of each kind decides, for older rows of the same metrics.
        step_offset: added to the step of every row, and to the number of steps that the run will
            take: the steps done before, where a resumed program counts from 0 again, e.g.
            `state.last_step`. `None` for 0.
        state: what `logger.state()` returned for the checkpoint that the training continues from,
            to continue that run, also a finished one, under its name and id. Takes precedence over
            `name`. The number of processes may differ. If the run is not in `log_dir`, it continues
            in a new folder there, with a warning; with `resume="must"` that is an error. `None` or
            `RunState.empty()` for no checkpoint.
        handle_signals: handle SIGTERM and SIGUSR1 (existing handlers still run): sync all rows to
            the disk, set `preempted`, and record the run as `"preempted"`. The signals no longer
            terminate the process; poll `preempted`. JAX's `reached_preemption_sync_point` works
            beside it. The same on every process.
        open_timeout: how long to wait for backends to open, in seconds. One that takes longer gets
            its rows later.
    """

    backend: Backends
    name: str | None = None
    hparams: object = None
    log_dir: str | Path | None = None
    group: ProcessGroup | None = None
    scope: str | None = None
    resume: str = "auto"
    start_step: int | None = None
    step_offset: int | None = None
    state: RunState | None = None
    handle_signals: bool = False
    open_timeout: float = 60.0

    def check(self) -> "CheckedConfig":
        """The arguments, checked and normalized; group and scope are checked elsewhere.

        Raises:
            ValueError: if an argument is outside its range; the message names it.
            TypeError: if an argument has the wrong type.
            RuntimeError: if signals are to be handled outside of the main thread.
        """
        if self.handle_signals:
            check_main_thread()
        backends, required = check_backends(self.backend)
        hparams = check_hparams(self.hparams)
        restored = read_state(self.state)
        name = self.name if restored is None else restored.name
        position = None
        if self.start_step is not None:
            position = Position(check_step(self.start_step, "start_step"))
        elif restored is not None and restored.start_step is not None:
            incarnation = restored.identity.incarnation
            position = Position(restored.start_step, restored.records, incarnation)
        step_offset = 0 if self.step_offset is None else self.step_offset
        if self.resume not in ("auto", "allow", "must", "never"):
            raise ValueError(
                f'`resume` must be "auto", "allow", "must" or "never", got {self.resume!r}. "auto" '
                'continues a run that has not finished, "allow" also one that has.'
            )
        if self.resume == "never" and restored is not None:
            raise ValueError(
                f'`resume="never"` conflicts with `state`, which continues run {restored.name!r}. '
                "Omit `state` to start a new run."
            )
        return CheckedConfig(
            backends,
            required,
            None if name is None else check_name(name),
            hparams,
            choose_log_dir(self.log_dir, backends),
            self.resume,
            position,
            check_step(step_offset, "step_offset"),
            restored,
            self.handle_signals,
            check_seconds("open_timeout", self.open_timeout),
        )


class CheckedConfig(NamedTuple):
    """The arguments of a `RunConfig`, checked and normalized.

    `required` are those of the backends without which the run must not start, `restored` is the
    run of the checkpoint, if there is one.
    """

    backends: tuple[Any, ...]
    required: tuple[Any, ...]
    name: str | None
    hparams: dict[str, Any]
    log_dir: Path
    resume: str
    position: Position | None
    step_offset: int
    restored: RestoredRun | None
    handle_signals: bool
    open_timeout: float


def check_step(step: Any, argument: str = "step") -> int:
    """Check a global step, an integer of 0 or more; `argument` is its name, for errors."""
    try:
        # A bool is an integer for Python; as a step it is a mistake.
        number = None if isinstance(step, bool) else step.__index__()
    except (AttributeError, TypeError):
        number = None
    if number is None:
        raise TypeError(
            f"`{argument}` must be an integer, got {step!r} of type {type(step).__name__}. "
            f"Use int({argument})."
        )
    if not 0 <= number < MAX_STEP:
        # Python refuses to write an integer of 5,000 digits in decimal.
        rule, shown = ("0 or more", number) if number < 0 else ("below 2**63", f"{number:#x}")
        raise ValueError(f"`{argument}` must be {rule}, got {shown}. Count steps from 0.")
    return number


def check_positive(argument: str, value: Any, purpose: str) -> int:
    """Check an integer of 1 or more; `purpose` is what 1 does, for errors."""
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"`{argument}` must be an integer of 1 or more, got {value!r}. Use 1 to {purpose}."
        )
    return value.__index__()


def check_seconds(argument: str, value: Any) -> float:
    """Check a duration that a thread can wait for."""
    seconds = float(value) if isinstance(value, Real) else -1.0
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(
            f"`{argument}` must be a finite number of seconds, 0 or more, got {value!r}. "
            "Use e.g. 60.0."
        )
    return seconds


def check_axis_name(
    axis_name: Any, argument: str = "axis_name", otherwise: str = "reduce over all manual axes"
) -> str | tuple[str, ...] | None:
    """Check names of mesh axes, which are strings; `otherwise` is what `None` does, for errors."""
    if axis_name is None or isinstance(axis_name, str):
        return axis_name
    if isinstance(axis_name, Sequence) and all(isinstance(name, str) for name in axis_name):
        return tuple(axis_name)
    raise TypeError(
        f"`{argument}` must be the name of a mesh axis, a sequence of names, or None, got "
        f"{axis_name!r}. Leave it None to {otherwise}."
    )


def check_members(members: Any, member_axes: Any, axis_name: Any) -> str | tuple[str, ...] | None:
    """Check how members are logged; returns the checked `member_axes`."""
    if members not in ("band", "each"):
        raise ValueError(
            f"`members` must be 'band' or 'each', got {members!r}. Use 'band' for the mean over "
            "members with its range."
        )
    axes = check_axis_name(member_axes, "member_axes", "have members along vmapped axes only")
    names = [{given} if isinstance(given, str) else {*(given or ())} for given in (axes, axis_name)]
    if both := names[0] & names[1]:
        raise ValueError(
            f"`axis_name` and `member_axes` both name {min(both)!r}; an axis holds data or "
            "members. Name it in one of them."
        )
    return axes
