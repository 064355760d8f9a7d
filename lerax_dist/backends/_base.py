"""What a logging backend is, and nothing else: no backend imports jax."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final, runtime_checkable

import numpy as np


# Temporary, as is `check_setup` below: the branch of the backends brings the real ones.
@final
@dataclass(frozen=True)
class SetupProblem:
    """Something about this machine that a backend cannot use, for `lerax-dist doctor`."""

    level: Literal["problem", "warning", "hint"]
    what: str
    fix: str


class AbstractLoggingBackend(abc.ABC):
    """Writes the rows of one run somewhere: subclass it to write them anywhere else.

    Life of a backend: `open`, then any number of `log_*`, then `close`. All calls come from one
    thread that serves this backend alone, in the process that writes (process 0). A call that
    raises is tried again a few times and then reported, one that hangs stops nobody else, and rows
    wait in the journal meanwhile. A backend never sees a `jax.Array`.

    Example:
        ```python
        class PrintBackend(AbstractLoggingBackend):
            def open(self, name):
                print("run", name)

            def log_hparams(self, hparams):
                print(hparams)

            def log_scalars(self, scalars, step):
                print(step, scalars)

            def log_video(self, tag, frames, step, fps):
                print(step, tag, frames.shape)

            def close(self):
                print("the end")


        with Logger([PrintBackend(), TensorBoardBackend("logs")]) as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)
        ```

    A backend may have further methods, which are called if they are there: `log_rows` instead of
    `log_scalars` (see `SupportsRows`), `on_training_start`
    (see `SupportsTrainingStart`), `on_run` and `on_end` (see `SupportsRunFacts` and
    `SupportsRunEnd`), `on_identity` and `on_resume` (see `SupportsIdentity` and `SupportsResume`).
    """

    @abc.abstractmethod
    def open(self, name: str) -> None:
        """Make ready to write the run `name`. Called once, before any other method.

        Args:
            name: name of the run, a relative path; process 0 chose it.
        """

    @abc.abstractmethod
    def log_hparams(self, hparams: dict[str, Any]) -> None:
        """Write hyperparameters.

        Args:
            hparams: flat names (`"policy.width"`) to Python numbers, strings and booleans.
        """

    @abc.abstractmethod
    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        """Write one row.

        Args:
            scalars: metric name to value, a NumPy scalar of type `float64` (also a Python `float`).
            step: global step of the row, exact.
        """

    @abc.abstractmethod
    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        """Write a video clip.

        Args:
            tag: metric name of the video.
            frames: `uint8` array of shape `(T, H, W, C)`.
            step: global step of the clip.
            fps: playback speed in frames a second.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is left and let go of everything. Called once, last."""

    @classmethod
    def check_setup(cls, timeout: float) -> list[SetupProblem]:
        """What would keep this backend from working in this process. Never prompts, never raises.

        Args:
            timeout: longest wait for a server, in seconds.
        """
        return []


@runtime_checkable
class SupportsRows(Protocol):
    """A backend that takes many rows at once, which is cheaper, and wants to know their times."""

    def log_rows(
        self,
        names: tuple[str, ...],
        values: np.ndarray,
        steps: Sequence[int],
        times: Sequence[float],
    ) -> None:
        """Write rows that have the same metrics. Called instead of `log_scalars`.

        A call that raises is taken to have written none of its rows: they come again, each by
        itself in a `log_scalars`.

        Args:
            names: names of the metrics.
            values: `(rows, metrics)` array of `float64`.
            steps: global step of each row, exact.
            times: when each row was logged, in seconds since the epoch.
        """
        ...


@runtime_checkable
class SupportsTrainingStart(Protocol):
    """A backend that wants to know the length of the training, e.g. for a progress bar."""

    def on_training_start(self, total_timesteps: int, total_iterations: int) -> None:
        """Training starts.

        Args:
            total_timesteps: global steps that the training will take; 0 if unknown.
            total_iterations: iterations that it will take; 0 if unknown.
        """
        ...


@runtime_checkable
class SupportsRunFacts(Protocol):
    """A backend that wants to know where and from what code the run was started."""

    def on_run(self, facts: dict[str, Any]) -> None:
        """What is known of the run. Called after `open` and before the first row.

        A replay calls it once for each incarnation of the run; the last says how it is now.

        Args:
            facts: plain JSON values. `name`, `run_id`, `incarnation`, `time` (seconds since the
                epoch), `pid` and `host` of process 0, `launcher`, `scope`, `process_count`,
                `hosts` (of each process), `platform` and `device_kind`, `devices_per_process`,
                `device_count`, `versions` (package to version), `git` (`commit`, `branch`,
                `dirty`), `command`, `directory`, `slurm_job_id`. Ask with `get`: what is not known
                is None or missing, and journals of older versions hold the first few only.
        """
        ...


@runtime_checkable
class SupportsRunEnd(Protocol):
    """A backend that wants to know how the run ended, e.g. to mark it as failed."""

    def on_end(self, state: str) -> None:
        """The run has ended. Called after the last row and before `close`.

        It is not called if the process that writes is killed. A replay calls it once for each
        incarnation that was closed; the last says how it is now.

        Args:
            state: `"finished"`, `"failed"` or `"preempted"`; or `"interrupted"`, in a replay of a
                run that was never closed.
        """
        ...


@runtime_checkable
class SupportsIdentity(Protocol):
    """A backend that wants to know which run it writes, before it opens, e.g. to continue it."""

    def on_identity(self, run_id: str, incarnation: int) -> None:
        """Called once, before `open`.

        Args:
            run_id: id of the run, the same each time that it is continued.
            incarnation: 1 for the first process that writes it, then one more each time.
        """
        ...


@runtime_checkable
class SupportsResume(Protocol):
    """A backend that can hide rows of an earlier incarnation which come again."""

    def on_resume(self, start_step: int) -> None:
        """The run goes on after it was interrupted. Called before the first row.

        Args:
            start_step: rows of earlier incarnations at this step or after it are superseded.
        """
        ...


_METHODS = ("open", "log_hparams", "log_scalars", "log_video", "close")


def check_backends(backend: object) -> tuple[AbstractLoggingBackend, ...]:
    """One backend or a sequence of them, as a tuple.

    A subclass of `AbstractLoggingBackend` is a backend; so is any object with its five methods
    (lerax's own backends are).

    Raises:
        ValueError: the sequence is empty, or holds one backend twice.
        TypeError: something in it is not a backend.
    """
    if isinstance(backend, (str, bytes, Mapping)) or not hasattr(backend, "__iter__"):
        members: tuple[Any, ...] = (backend,)
    else:
        members = tuple(backend)  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
    if not members:
        raise ValueError(
            "`backend` must hold at least one backend, got an empty sequence. "
            "Use `NoOpBackend()` to log to the journal only."
        )
    for member in members:
        missing = [method for method in _METHODS if not callable(getattr(member, method, None))]
        if missing or isinstance(member, type):
            what = f"the class {member.__name__}" if isinstance(member, type) else repr(member)
            mend = (
                "Call it to make an instance."
                if isinstance(member, type)
                else f"Subclass `AbstractLoggingBackend`; it lacks {', '.join(missing)}."
            )
            raise TypeError(f"`backend` must be a logging backend, got {what}. {mend}")
    if len({id(member) for member in members}) != len(members):
        raise ValueError(
            f"`backend` holds one backend twice: {members!r}. Give each destination an instance."
        )
    return members
