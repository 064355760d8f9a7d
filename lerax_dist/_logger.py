"""`Logger`: the logger for an ordinary Python loop."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist._config import Backends, RunConfig, check_step
from lerax_dist._handle import AbstractRunHandle
from lerax_dist._hparams import check_hparams
from lerax_dist._open import open_run
from lerax_dist._run_name import check_tag
from lerax_dist._state import RunState
from lerax_dist.backends._video import check_fps, check_frames
from lerax_dist.cluster import ProcessGroup
from lerax_dist.device._fetch import Fetcher
from lerax_dist.device._local import (
    check_distinct,
    has_partials,
    local_values,
    plain_types,
    split_partials,
)
from lerax_dist.host._compare import MAX_COMPARED, Sample, Sampler
from lerax_dist.host._queue import HostRow, TrainingStart
from lerax_dist.journal import Event

# About what a row takes in memory until it is written.
_ROW_BYTES = 500
_METRIC_BYTES = 100


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
        hparams: Mapping[str, Any] | None = None,
        log_dir: str | Path | None = None,
        group: ProcessGroup | None = None,
        scope: str | None = None,
        resume: str = "auto",
        start_step: int | None = None,
        state: RunState | None = None,
        handle_signals: bool = False,
        open_timeout: float = 60.0,
    ) -> None:
        """Open a run. All processes of a launch call this, with the same arguments.

        All arguments but `total_steps` are those of `RunConfig`.

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
            state: what `logger.state()` returned for the checkpoint to continue from.
            handle_signals: handle SIGTERM and SIGUSR1, see `preempted`.
            open_timeout: how long to wait for backends to open, in seconds.

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
            state=state,
            handle_signals=handle_signals,
            open_timeout=open_timeout,
        )
        # The worker waits for each value, so no callback is waited for.
        self._run = run = open_run(
            config, logs_host_rows=True, wait_for_callbacks=lambda timeout: None
        )
        self._fetcher = Fetcher()
        is_compared = not run.is_written_here and run.info.group.process_index < MAX_COMPARED
        self._sampler = Sampler() if is_compared else None
        hparams = run.info.hparams
        run.put(TrainingStart(1, 0, total, 0, hparams, time.time(), time.perf_counter()))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log a row. Returns at once; another thread waits for values still being computed.

        Args:
            metrics: nested names (joined with `/`) to scalars: Python or NumPy numbers, or
                `jax.Array` scalars that are whole on this process (local or replicated); or to
                partials, which all processes log at the same steps.
            step: global step.

        Raises:
            ValueError: if a value is not a scalar, is sharded over processes, is held only by
                others than process 0, was donated, or is larger than any float; if two names are
                the same once joined; or if `step` is negative.
            TypeError: if a value is not a number, a name is not a string, or `step` is not an
                integer.
            RuntimeError: if the logger is closed.
        """
        # Beside a busy step each function that is called costs some 5 us, whatever it does: its
        # code has left the caches. So the usual case calls few.
        begin = time.perf_counter()
        run = self._run
        if run.is_closed:
            self._check_open("log")
        if type(step) is not int or step < 0:
            step = check_step(step)
        plain, partials = metrics, ()
        is_plain = type(metrics) is dict and plain_types.issuperset(map(type, metrics.values()))
        if not is_plain and has_partials(metrics):
            plain, partials = split_partials(metrics, run.info.group.is_writer)
        fetched = self._fetcher.fetch(plain, run.is_written_here)
        if partials:
            check_distinct(metrics, fetched[0], partials)
        if not run.is_written_here:
            if self._sampler is not None:
                chosen = self._sampler.choose(fetched[0], step, begin)
                if chosen:
                    self._send_sample(step, local_values(plain, {*chosen}))
            if not partials:
                return
            fetched = ((), {}, [])
        size = _ROW_BYTES + _METRIC_BYTES * (len(fetched[0]) + len(partials))
        run.log(HostRow(step, fetched, time.time(), partials), size, begin)

    def _send_sample(self, step: int, values: list[tuple[tuple[str, ...], Any]]) -> None:
        if values:
            self._run.put(Sample(self._run.info.group.process_index, step, values))

    def log_video(self, tag: str, frames: Any, step: int, fps: float = 50.0) -> None:
        """Log a video clip. Returns once the frames are copied; another thread encodes them.

        Process 0 writes its own. The clip is kept without loss in `videos` beside the journal. If
        clips arrive faster than they can be encoded some are dropped, with one warning.

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
        self._check_open("log_video")
        tag, step = check_tag(tag), check_step(step)
        clip = check_frames(np.array(frames))
        check_fps(fps)
        self._run.log_clip(tag, clip, step, float(fps))

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Log hyperparameters that were unknown at the start.

        Args:
            hparams: names to values; nested names are joined with a dot.

        Raises:
            TypeError: if `hparams` is not a mapping, or a name is not a string.
            RuntimeError: if the logger is closed.
        """
        self._check_open("log_hparams")
        self._run.put(Event(time.time(), "hparams", {"hparams": check_hparams(hparams)}))

    def _check_open(self, method: str) -> None:
        if self._run.is_closed:
            raise RuntimeError(
                f"`{method}` was called after `close()` of run {self.name!r}; a closed run accepts "
                "no more rows. Close the logger when training is over."
            )
