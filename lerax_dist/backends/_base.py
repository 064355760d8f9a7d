"""What a logging backend is, and nothing else: no backend imports jax."""

# ruff: noqa: B027 (hooks are empty and not abstract on purpose: most backends need none)

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, final

import numpy as np

_T = TypeVar("_T")


@final
@dataclass(frozen=True)
class SetupProblem:
    """What a check of `lerax-dist doctor` has found, e.g. that a backend cannot be used here.

    Attributes:
        level: with a `"problem"` a run would not log correctly; with a `"warning"` it would, but
            does less than it could, e.g. W&B is offline; a `"hint"` is an improvement.
        what: what is wrong.
        fix: what to do about it; empty if `what` includes it.
    """

    level: Literal["problem", "warning", "hint"]
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; fix: {self.fix}" if self.fix else self.what


class AbstractLoggingBackend(abc.ABC):
    """Writes the rows of one run somewhere: subclass it to write them anywhere else.

    Order of calls: `open`, then any number of `log_*`, then `close`. All calls come from one
    thread that serves this backend alone, in the process that writes (process 0). A call that
    raises `OSError` is retried a few times and then reported; one that hangs delays neither the
    training nor another backend. The journal has every row. A backend never sees a `jax.Array`.

    The five abstract methods make a backend. The hooks below them do nothing unless they are
    overridden. Class attributes and class methods serve the command line: `lerax-dist replay` can
    write old runs to a backend with a `replay_name`, and `lerax-dist doctor` calls `check_setup`.

    Attributes:
        replay_name: name for `lerax-dist replay --to`; None if a run cannot be replayed to it.
        replay_files: glob patterns of its files in the folder of a run. A replay does not start if
            there are some already, unless it is to replace or to complete them.

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
    """

    replay_name: ClassVar[str | None] = None
    replay_files: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def open(self, name: str) -> None:
        """Prepare to write the run `name`. Called once, before any `log_*`.

        Args:
            name: name of the run, a relative path; process 0 chose it.
        """

    @abc.abstractmethod
    def log_hparams(self, hparams: dict[str, Any]) -> None:
        """Write hyperparameters, in place of those of an earlier call.

        Args:
            hparams: all that this start of the run has logged so far: flat names (`"policy.width"`)
                to Python numbers, strings, booleans, `None`, and lists of these.
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
        """Write what is buffered and release all resources. Called once, last."""

    def on_identity(self, run_id: str, incarnation: int) -> None:
        """Learn which run it is, e.g. to continue it elsewhere. Called once, before `open`.

        Args:
            run_id: id of the run, the same each time that it is resumed.
            incarnation: 1 for the first start of the run, then one more each time.
        """

    def new_run_id(self) -> str | None:
        """The id for a run that is new, e.g. of an environment variable; `None` for any id.

        The run keeps it: when it is resumed, `on_identity` has it again.
        """
        return None

    def on_run(self, facts: dict[str, Any]) -> None:
        """Learn where and from what code the run was started.

        Called after `open` and before the first row. A replay calls it once for each incarnation of
        the run; the last is the current one.

        Args:
            facts: plain JSON values. `name`, `run_id`, `incarnation`, `time` (seconds since the
                epoch), `pid` and `host` of process 0, `launcher`, `scope`, `process_count`,
                `hosts` (of each process), `platform` and `device_kind`, `devices_per_process`,
                `device_count`, `versions` (package to version), `git` (`commit`, `branch`,
                `dirty`), `command`, `directory`, `slurm_job_id` (or `pbs_job_id`, `flux_job_id`).
                Read them with `get`: what is not known is None or missing, and journals of older
                versions hold the first few only.
        """

    def on_training_start(self, total_timesteps: int, total_iterations: int) -> None:
        """Learn the length of the training, e.g. for a progress bar.

        Args:
            total_timesteps: global steps that the training will take; 0 if unknown.
            total_iterations: iterations that it will take; 0 if unknown.
        """

    def on_resume(self, start_step: int) -> None:
        """Learn that the run resumes after it was interrupted.

        Called before the first row; again if rows with other metrics resume elsewhere.

        Args:
            start_step: rows so far at this step or after it are superseded. Those that are not,
                since they have other metrics, follow again, to a backend that overrides this.
        """

    def on_end(self, state: str) -> None:
        """Learn how the run ended. Called after the last row and before `close`.

        It is not called if the process that writes is killed. A replay calls it once for each
        incarnation that was closed; the last is the current state.

        Args:
            state: `"finished"`, `"failed"` or `"preempted"`; or `"interrupted"`, in a replay of a
                run that was never closed.
        """

    def log_rows(
        self,
        names: tuple[str, ...],
        values: np.ndarray,
        steps: Sequence[int],
        times: Sequence[float],
    ) -> None:
        """Write rows that have the same metrics: cheaper than one by one, and with their times.

        By default each row goes to `log_scalars`. A backend that overrides this gets its rows here
        instead. If a call raises an error, none of its rows counts as written: an `OSError` is
        retried with one row a call, after any other error the rows go to `log_scalars`.

        Args:
            names: names of the metrics.
            values: `(rows, metrics)` array of `float64`.
            steps: global step of each row, exact.
            times: when each row was logged, in seconds since the epoch.
        """
        for row, step in zip(values, steps, strict=True):
            self.log_scalars(dict(zip(names, row, strict=True)), step)

    def log_vectors(self, vectors: dict[str, np.ndarray], step: int) -> None:
        """Write the metrics of a row whose values are vectors, e.g. a histogram.

        Called after the scalars of the same row. By default vectors are skipped.

        Args:
            vectors: metric name to a one-dimensional array of `float64`.
            step: global step of the row, exact.
        """

    @classmethod
    def for_replay(cls, log_dir: Path | None, *, project: str | None) -> Self:
        """A backend to which `lerax-dist replay` writes a run.

        Args:
            log_dir: folder in which each run has its own; None for the default of the backend.
            project: project to write to, for backends that have projects; None if none was given.

        Raises:
            TypeError: this backend cannot be replayed to.
        """
        raise TypeError(
            f"`{cls.__name__}` cannot be replayed to. Override `for_replay` and set `replay_name`."
        )

    @classmethod
    def check_setup(cls, timeout: float) -> list[SetupProblem]:
        """Find what keeps this backend from working in this process. Never prompts, never raises.

        Args:
            timeout: longest wait for a server, in seconds.
        """
        return []


def not_open(backend: object) -> RuntimeError:
    """The error of a backend that is written to before `open` or after `close`."""
    return RuntimeError(
        f"`{type(backend).__name__}` must be open to be written to, and it is not: either `open` "
        "was not called or `close` was. Log before the run is closed, or start a new run."
    )


def already_open(backend: object, name: str) -> RuntimeError:
    """The error of a backend that is opened twice: two runs would be written to one place."""
    return RuntimeError(
        f"`{type(backend).__name__}` must be closed before it opens run {name!r}, and it still "
        "writes another. Give each run its own backend."
    )


def rename_reserved(reserved: Collection[str], values: Mapping[str, _T]) -> dict[str, _T]:
    """Values in their order; a name that a format reserves becomes `metrics/<name>`."""
    renamed: dict[str, _T] = {}
    for name, value in values.items():
        if name in reserved:
            name = f"metrics/{name}"
            while name in values:
                name += "_"
        renamed[name] = value
    return renamed


def as_utf8(text: str) -> str:
    """Text that UTF-8 can hold: halves of characters, as a file name has that is none, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(error: BaseException) -> str:
    """The message of an error, on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
