"""`Logger`: the host half for an ordinary Python loop."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist._handle import AbstractRunHandle
from lerax_dist._open import open_session
from lerax_dist._run import check_hparams, check_step, check_tag
from lerax_dist._state import RunState
from lerax_dist.backends import AbstractLoggingBackend, Required
from lerax_dist.backends._video import check_fps, check_frames
from lerax_dist.cluster import ProcessGroup
from lerax_dist.device._fetch import Fetcher
from lerax_dist.host._sink import HostRow, Start
from lerax_dist.journal._record import Event

# About what a row takes in memory until it is written.
_ROW_BYTES = 500
_METRIC_BYTES = 100


@final
class Logger(AbstractRunHandle):
    """Logs a run from an ordinary Python loop, once, whatever the number of processes.

    All processes of a launch construct it and call it alike; process 0 writes its own values, on
    the others each backend is a `NoOpBackend`. Values are written as they are: reduce them over
    devices and processes in the compiled step first, by `jnp.mean` on global arrays or by
    `lerax_dist.reduce` inside `shard_map`. Where processes run one program each (`scope`), the mean
    over them is written.

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
        backend: AbstractLoggingBackend | Required | Sequence[AbstractLoggingBackend | Required],
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

        Args:
            backend: where to log to: a backend, or several. One that cannot be opened is left out
                with a warning; one in `Required(...)` is an error then.
            name: name of the run, a relative path inside `log_dir`; `None` to make one from the
                time. Process 0 decides, all agree.
            total_steps: steps that the run will take, for progress and remaining time.
            hparams: hyperparameters to log; nested names are joined with a dot.
            log_dir: folder that the run's own folder lies in; `None` for that of the first
                backend that has one, else `logs`.
            group: the processes that log together; `None` for those that JAX has joined.
            scope: `"global"` if every process has the same values, of which process 0 writes its
                own; `"process"` if each has values of its own (independent learners, a population),
                of which the mean is written. `None` for `"global"` if JAX has joined the processes
                and `"process"` if not. To log each process on its own pass `group=SoloGroup()`.
            resume: what to do with a run of that name that is there already: `"auto"` continues one
                that has not finished, and else takes `name_2` and so on; `"must"` continues it in
                any case, and is an error if there is none; `"never"` takes a new name.
            start_step: where a continued run goes on, e.g. the step of a checkpoint. Rows of
                earlier incarnations at this step or after it are superseded: kept, marked in the
                journal, hidden by backends that can. `None` for where `state` says, else for the
                step of the first row.
            state: what `logger.state()` gave for the checkpoint that the training goes on from,
                to continue that run, also a finished one, under its name and id. It goes before
                `name`. The number of processes may be another. If the run is not in `log_dir`,
                it goes on in a new folder there, with a warning; with `resume="must"` that is
                an error. `None` or `RunState.empty()` for no checkpoint.
            handle_signals: notice SIGTERM and SIGUSR1 (a handler that is there already still runs):
                all rows are on the disk at once, `preempted` tells, and the run ends as
                `"preempted"`. The signals do not end the process then: look at `preempted`.
                JAX's own notice, `reached_preemption_sync_point`, hears of no SIGTERM then.
            open_timeout: how long to wait for backends to open, in seconds. One that takes longer
                gets its rows later.

        Raises:
            ValueError: an argument is outside its range; the message names it.
            TypeError: something in `backend` is not a backend.
            RuntimeError: a launcher has started several processes, but JAX has not been joined;
                or the run or a `Required` backend cannot be opened, then on every process alike.
        """
        total = check_step(0 if total_steps is None else total_steps, "total_steps")
        self._fetcher = Fetcher()
        self._session = open_session(
            backend,
            name,
            hparams=hparams,
            log_dir=log_dir,
            group=group,
            scope=scope,
            resume=resume,
            start_step=start_step,
            state=state,
            handle_signals=handle_signals,
            open_timeout=open_timeout,
            # Values are waited for one by one, by the thread that writes them.
            settle=lambda timeout: None,
        )
        self._takes_part = self._session.takes_part
        given = self._session.hparams
        self._session.run.put(Start(1, 0, total, 0, given, time.time(), time.perf_counter()))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log a row. Returns at once; values still being computed are waited for elsewhere.

        Args:
            metrics: nested names (joined with `/`) to scalars: Python or NumPy numbers, or
                `jax.Array` scalars that are whole on this process (local or replicated).
            step: global step.

        Raises:
            ValueError: a value is not a scalar, is sharded over processes, lies on others than
                process 0, was donated, or is larger than any float; two names are the same once
                joined; or `step` is negative.
            TypeError: a value is not a number, a name not a string, or `step` not an integer.
            RuntimeError: the logger is closed.
        """
        # Beside a busy step each function that is called costs some 5 us, whatever it does: its
        # code has left the caches. So the usual case calls few.
        begin = time.perf_counter()
        run = self._session.run
        if run.closed:
            self._check_open("log")
        if type(step) is not int or step < 0:
            step = check_step(step)
        if not self._takes_part:
            self._fetcher.check(metrics)
            return
        fetched = self._fetcher.fetch(metrics)
        size = _ROW_BYTES + _METRIC_BYTES * len(fetched[0])
        run.log(HostRow(step, fetched, time.time()), size, begin)

    def log_video(self, tag: str, frames: Any, step: int, fps: float = 50.0) -> None:
        """Log a video clip. Returns once the frames are copied; they are encoded elsewhere.

        Process 0 writes its own. The clip is kept without loss in `videos` beside the journal. If
        clips come faster than they can be encoded some are left out, with one warning.

        Args:
            tag: metric name of the video, e.g. `"eval/video"`.
            frames: `uint8` array of shape `(T, H, W, C)`, C being 1 (grey), 3 (RGB) or 4 (RGBA).
            step: global step.
            fps: playback speed in frames a second.

        Raises:
            ValueError: `tag` leads out of the folder of the run, `frames` are no such array, `fps`
                is not positive and finite, or `step` is negative.
            TypeError: `step` is not an integer.
            RuntimeError: the logger is closed.
        """
        self._check_open("log_video")
        tag, step = check_tag(tag), check_step(step)
        clip = check_frames(np.array(frames))
        check_fps(fps)
        if self._session.group.is_writer:
            run: Any = self._session.run
            run.studio.frames(tag, clip, step, float(fps))

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Log hyperparameters that were not known at the start.

        Args:
            hparams: names to values; nested names are joined with a dot.

        Raises:
            TypeError: `hparams` is no mapping, or a name is no string.
            RuntimeError: the logger is closed.
        """
        self._check_open("log_hparams")
        self._session.run.put(Event(time.time(), "hparams", {"hparams": check_hparams(hparams)}))

    def _check_open(self, method: str) -> None:
        if self._session.run.closed:
            raise RuntimeError(
                f"`{method}` was called after `close()` of the run {self.name!r}; a closed run "
                "takes no more rows. Close the logger when training is over."
            )
