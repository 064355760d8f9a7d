"""`Logger`: the logger for an ordinary Python loop."""

import functools
import time
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist._config import MAX_STEP, Backends, RunConfig, check_step
from lerax_dist._handle import AbstractRunHandle
from lerax_dist._hparams import check_hparams
from lerax_dist._open import open_run
from lerax_dist._run_name import check_tag
from lerax_dist._state import RunState
from lerax_dist.backends._video import check_fps, check_frames
from lerax_dist.cluster import ProcessGroup
from lerax_dist.device._callback import is_called_by_jax, wait_for_callbacks
from lerax_dist.device._fetch import Fetcher, sample_of
from lerax_dist.device._sender import RowSender
from lerax_dist.host._compare import MAX_COMPARED, Sample, Sampler
from lerax_dist.host._queue import HostRow, TrainingStart
from lerax_dist.journal import Event

# About what a row takes in memory until it is written.
_ROW_BYTES = 500
_METRIC_BYTES = 100
# How many names of values that cannot be logged are warned of.
_MAX_LEFT_OUT = 20


@final
class Logger(AbstractRunHandle):
    """Logs a run from an ordinary Python loop, once, whatever the number of processes.

    All processes of a launch construct it and call it alike; process 0 writes its own values, on
    the others each backend is a `NoOpBackend`. Values are written as they are: reduce them over
    devices and processes in the compiled step first, by `jnp.mean` on global arrays or by
    `lerax_dist.reduce` inside `shard_map`. What each process has for itself is merged if it is
    logged as a partial, such as `Mean.of(losses)`; else a value that differs between processes is
    reported once. Where processes run one program each (`scope`), the mean over them is written.

    Example:
        ```python
        with Logger([TensorBoardBackend(), ConsoleBackend()], total_steps=1000) as logger:
            for step in range(1000):
                params, loss = train_step(params, next(batches))
                logger.log({"train": {"loss": loss}}, step)
        ```
    """

    def __init__(
        self,
        backend: Backends,
        name: str | None = None,
        *,
        total_steps: int | None = None,
        hparams: object = None,
        log_dir: str | Path | None = None,
        group: ProcessGroup | None = None,
        scope: str | None = None,
        resume: str = "auto",
        start_step: int | None = None,
        step_offset: int | None = None,
        state: RunState | None = None,
        handle_signals: bool = False,
        open_timeout: float = 60.0,
        strict: bool = False,
    ) -> None:
        """Open a run. All processes of a launch call this, with the same arguments.

        All arguments but `total_steps` and `strict` are those of `RunConfig`.

        Args:
            backend: where to log to: a backend, or several.
            name: name of the run; `None` to generate one from the time.
            total_steps: steps that the run will take, for progress and remaining time.
            hparams: hyperparameters to log.
            log_dir: folder in which the folder of the run is made.
            group: the processes that log together.
            scope: `"global"` if every process has the same values, of which process 0 writes its
                own; `"process"` if each has values of its own, of which the mean is written.
            resume: what to do if there is a run of that name.
            start_step: step at which a resumed run continues.
            step_offset: added to every step, for a program that counts from 0 again.
            state: what `logger.state()` returned for the checkpoint to continue from.
            handle_signals: handle SIGTERM and SIGUSR1, see `preempted`.
            open_timeout: how long to wait for backends to open, in seconds.
            strict: whether `log` raises an error on a value that it cannot log, on every process;
                else the row is written without it, with one warning for each name.

        Raises:
            ValueError: if an argument is outside its range; the message names it.
            TypeError: if something in `backend` is not a backend.
            RuntimeError: if a launcher has started several processes, but JAX has not joined them;
                or if the run or a `Required` backend cannot be opened, then on every process.
        """
        total = check_step(0 if total_steps is None else total_steps, "total_steps")
        config = RunConfig(
            backend=backend,
            name=name,
            hparams=hparams,
            log_dir=log_dir,
            group=group,
            scope=scope,
            resume=resume,
            start_step=start_step,
            step_offset=step_offset,
            state=state,
            handle_signals=handle_signals,
            open_timeout=open_timeout,
        )
        # The worker waits for each value, but rows of `emit` and of callbacks may be on their way.
        # A step that fails is an error of the user's, whose values the worker names.
        wait = functools.partial(wait_for_callbacks, reports_errors=False)
        self._run = run = open_run(config, logs_host_rows=True, wait_for_callbacks=wait)
        self._step_offset = step_offset or 0
        self._strict = strict
        # Names of values that were left out.
        self._warned: set[str] = set()
        self._sender = RowSender(run.row_callback, is_first=run.info.is_first)
        group = run.info.group
        self._fetcher = Fetcher(self._leave_out, is_first=group.is_writer)
        is_compared = not run.is_written_here and group.process_index < MAX_COMPARED
        self._sampler = Sampler() if is_compared else None
        hparams = run.info.hparams
        run.put(TrainingStart(1, 0, total, 0, hparams, time.time(), time.perf_counter()))

    def log(self, metrics: Any, step: int) -> None:
        """Log a row. Returns at once; another thread waits for values still being computed.

        A value that cannot be logged is left out of the row, with one warning (see `strict`): what
        is not a real number, not a scalar, sharded over processes, held only by others than process
        0, donated before, or larger than any float; and what has no name, or that of another value.

        It may be called in a host callback of your own, too; `emit` needs none. There a call after
        `close` is recorded in `failures`, since an error would end the program.

        Args:
            metrics: names to values: Python or NumPy numbers, `jax.Array`s of one element that are
                whole on this process (local or replicated), what `reduce` returned, and partials,
                which all processes log at the same steps. Mappings, lists, tuples, dataclasses and
                other pytrees may be nested; their keys, indices and fields are joined with `/`.
                `None` is nothing.
            step: global step.

        Raises:
            ValueError: if `step` is negative; with `strict`, if a value cannot be logged.
            TypeError: if `step` is not an integer, or a value belongs to a trace; with `strict`, if
                a value is not a number.
            RuntimeError: if the logger is closed.
        """
        # Beside a busy step each function that is called costs some 5 us, whatever it does: its
        # code has left the caches. So the usual case calls few.
        begin = time.perf_counter()
        run = self._run
        if run.is_closed:
            if not self._may_log("log"):
                return
        if type(step) is not int or not 0 <= step < MAX_STEP:
            step = check_step(step)
        fetched = self._fetcher.fetch(metrics, run.is_written_here)
        schema = fetched[0]
        if not run.is_written_here:
            if self._sampler is not None:
                chosen = self._sampler.choose(schema.plain, step, begin)
                if chosen:
                    self._send_sample(metrics, step, chosen)
            if not schema.local_names:
                return
        size = _ROW_BYTES + _METRIC_BYTES * (len(schema.plain) + len(schema.partials))
        run.log(HostRow(step, fetched, time.time()), size, begin)

    def _send_sample(self, metrics: Any, step: int, names: tuple[str, ...]) -> None:
        values = sample_of(metrics, names)
        if values:
            self._run.put(Sample(self._run.info.group.process_index, step, names, values))

    def _leave_out(self, name: str, error: Exception) -> None:
        """A value cannot be logged."""
        if self._strict:
            raise error
        if self._run.is_written_here:
            what = f"{error} Rows are written without it; `strict=True` raises instead."
            if len(self._warned) == _MAX_LEFT_OUT and name not in self._warned:
                name, what = "", "values under more names cannot be logged, without a warning each"
            else:
                self._warned.add(name)
            # Without the error itself, which would keep the values of the row alive.
            self._run.failures.record("log", what, kind=name)

    def log_video(self, tag: str, frames: Any, step: int, fps: float = 50.0) -> None:
        """Log a video clip. Returns once the frames are copied; another thread encodes them.

        Process 0 writes its own. The clip is kept without loss in `videos` beside the journal. If
        clips arrive faster than they can be encoded, it waits while 256 MiB of them are queued.

        Args:
            tag: metric name of the video, e.g. `"eval/video"`.
            frames: `uint8` array of shape `(T, H, W, C)`, C being 1 (gray), 3 (RGB) or 4 (RGBA).
            step: global step.
            fps: playback speed in frames a second.

        Raises:
            ValueError: if `tag` leads out of the folder of the run, `frames` are not such an array,
                `fps` is not positive and finite, or `step` is negative.
            TypeError: if `step` is not an integer.
            RuntimeError: if the logger is closed.
        """
        if not self._may_log("log_video"):
            return
        tag, step = check_tag(tag), check_step(step)
        clip = check_frames(np.array(frames))
        check_fps(fps)
        self._run.log_clip(tag, clip, step + self._step_offset, float(fps))

    def log_hparams(self, hparams: object) -> None:
        """Log hyperparameters that were unknown at the start.

        Args:
            hparams: names to values, or an object with fields, as in `RunConfig`.

        Raises:
            TypeError: if `hparams` is neither a mapping nor an object with fields.
            RuntimeError: if the logger is closed.
        """
        if not self._may_log("log_hparams"):
            return
        self._run.put(Event(time.time(), "hparams", {"hparams": check_hparams(hparams)}))

    def _may_log(self, method: str) -> bool:
        """Whether the run is open; raises if not, but where JAX would end the program for it."""
        if not self._run.is_closed:
            return True
        message = (
            f"`{method}` was called after `close()` of run {self.name!r}; a closed run accepts "
            "no more rows. Close the logger when training is over."
        )
        if not is_called_by_jax():
            raise RuntimeError(message)
        self._run.failures.record("callback", message)
        return False
