"""`Logger`: the host half for an ordinary Python loop."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from lerax_dist._metrics import flatten
from lerax_dist._run import check_hparams, check_step
from lerax_dist._session import close_run, open_run
from lerax_dist.backends import AbstractLoggingBackend
from lerax_dist.cluster import ProcessGroup, current_group
from lerax_dist.device._fetch import fetch
from lerax_dist.host._failures import Failure
from lerax_dist.host._record import Event
from lerax_dist.host._sink import Start


@final
class Logger:
    """Logs a run from an ordinary Python loop, once, whatever the number of processes.

    All processes of a launch construct it and call it alike; process 0 writes its own values, on
    the others each backend is a `NoOpBackend`. Values are written as they are: reduce them over
    devices and processes in the compiled step first, by `jnp.mean` on global arrays or by
    `lerax_dist.reduce` inside `shard_map`.

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
        backend: AbstractLoggingBackend | Sequence[AbstractLoggingBackend],
        name: str | None = None,
        *,
        total_steps: int | None = None,
        hparams: Mapping[str, Any] | None = None,
        log_dir: str | Path | None = None,
        group: ProcessGroup | None = None,
        open_timeout: float = 60.0,
    ) -> None:
        """Open a run. All processes of a launch call this, with the same arguments.

        Args:
            backend: where to log to: a backend, or several.
            name: name of the run, a relative path inside `log_dir`; `None` to make one from the
                time. Process 0 decides, all agree.
            total_steps: steps that the run will take, for progress and remaining time.
            hparams: hyperparameters to log; nested names are joined with a dot.
            log_dir: folder that the run's own folder lies in; `None` for that of the first
                backend that has one, else `logs`.
            group: the processes that log together; `None` for those that JAX has joined.
            open_timeout: how long to wait for backends to open, in seconds. One that takes longer
                gets its rows later.

        Raises:
            ValueError: an argument is outside its range; the message names it.
            TypeError: something in `backend` is not a backend.
            RuntimeError: a launcher has started several processes, but JAX has not been joined;
                or the run cannot be opened, then on every process alike.
        """
        total = check_step(0 if total_steps is None else total_steps, "total_steps")
        flat = check_hparams(hparams)
        self._run, self._backends = open_run(
            backend,
            name,
            env=None,
            policy=None,
            log_dir=log_dir,
            group=current_group(group),
            open_timeout=open_timeout,
            settle=lambda timeout: None,
        )
        self._run.put(Start(1, 0, total, 0, flat, time.time(), time.perf_counter()))

    @property
    def name(self) -> str:
        """Name of the run, the same on every process."""
        return self._run.name

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return self._run.directory

    @property
    def backends(self) -> tuple[AbstractLoggingBackend, ...]:
        """The backends of this process: those given on process 0, `NoOpBackend`s elsewhere."""
        return self._backends

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What has gone wrong in logging so far. Training has not felt it."""
        return self._run.failures.all()

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log a row. Returns at once; values still being computed are waited for elsewhere.

        Args:
            metrics: nested names (joined with `/`) to scalars: Python or NumPy numbers, or
                `jax.Array` scalars that are whole on this process (local or replicated).
            step: global step.

        Raises:
            ValueError: a value is not a scalar or is sharded over processes, two names are the
                same once joined, or `step` is negative.
            TypeError: a value is not a number, a name not a string, or `step` not an integer.
            RuntimeError: the logger is closed.
        """
        self._check_open("log")
        step = check_step(step)
        flat = flatten(metrics)
        self._run.log({name: fetch(name, value) for name, value in flat.items()}, step)

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Log hyperparameters that were not known at the start.

        Args:
            hparams: names to values; nested names are joined with a dot.

        Raises:
            TypeError: `hparams` is no mapping, or a name is no string.
            RuntimeError: the logger is closed.
        """
        self._check_open("log_hparams")
        self._run.put(Event(time.time(), "hparams", {"hparams": check_hparams(hparams)}))

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every row so far is in the journal and with every backend.

        Args:
            timeout: how long to wait at most, in seconds.

        Raises:
            TimeoutError: something was not done in time; the message says what.
        """
        self._run.flush(timeout)

    def close(
        self, *, timeout: float = 60.0, raise_failures: bool = False, failed: bool = False
    ) -> None:
        """Write everything that is left and close the backends. A second call does nothing.

        It waits for no other process. What fails is kept in `failures` and shown as a warning.

        Args:
            timeout: how long to take at most, in seconds.
            raise_failures: raise what has failed, all of it as one group.
            failed: the run ended by an error; its state is `"failed"`, not `"finished"`.

        Raises:
            ExceptionGroup: something failed and `raise_failures` is set.
        """
        close_run(self._run, timeout, raise_failures, failed)

    def _check_open(self, method: str) -> None:
        if self._run.closed:
            raise RuntimeError(
                f"`{method}` was called after `close()` of the run {self.name!r}; a closed run "
                "takes no more rows. Close the logger when training is over."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(failed=error is not None)
