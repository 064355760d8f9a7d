"""What both loggers offer a user for their run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lerax_dist._config import check_axis_name
from lerax_dist._failures import Failure
from lerax_dist._metric_names import flatten
from lerax_dist._state import RestoredRun, RunState, write_state
from lerax_dist.backends import AbstractLoggingBackend
from lerax_dist.device._axes import check_scope
from lerax_dist.device._sender import RowSender
from lerax_dist.device._step_state import Step
from lerax_dist.host._exit_status import is_error
from lerax_dist.host._run import Run


class AbstractRunHandle:
    """A run that can be flushed and closed, and has a name.

    Its methods are concrete, against the rule for abstract classes here: the two loggers share
    nothing else, and would otherwise repeat the same methods.
    """

    _run: Run
    _sender: RowSender

    @property
    def name(self) -> str:
        """Name of the run, the same on every process."""
        return self._run.info.name

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return self._run.info.directory

    @property
    def run_id(self) -> str:
        """Id of the run, the same each time that it is continued, and on every process."""
        return self._run.info.identity.run_id

    @property
    def incarnation(self) -> int:
        """1 for the first launch that writes the run, then one more each time it is continued."""
        return self._run.info.identity.incarnation

    @property
    def backends(self) -> tuple[AbstractLoggingBackend, ...]:
        """The backends of this process: those given on process 0, `NoOpBackend`s elsewhere."""
        return self._run.info.backends

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What has failed in logging so far; training was not affected."""
        return self._run.failures.all()

    @property
    def preempted(self) -> bool:
        """Whether to leave, as the job is about to end: SIGTERM or SIGUSR1 reached any of the
        processes.

        Needs `handle_signals=True`. Every process asks equally often, e.g. once an iteration, and
        the n-th answer is the same on all, so they leave after the same one. It waits for the
        others once, when there was a signal; with an `MPIGroup` each time.

        Raises:
            TimeoutError: if a process did not answer within 5 minutes; the message names it.
        """
        return self._run.preempted()

    def emit(
        self,
        metrics: Mapping[str, Any],
        step: Step,
        *,
        axis_name: str | Sequence[str] | None = None,
    ) -> None:
        """Log a row from inside compiled code: `jit`, `scan`, `cond`, `shard_map`, `pmap`.

        Metrics are reduced over the devices of all processes, by one collective and one callback.
        Names are written as they are, and the row has no other metrics. Call it wherever the
        program has something to log, for as many kinds of rows as you like. Rows with the same
        names are written in the order of their steps. A step may come twice, and a program may
        count from 0 again: every row is written. `log_interval` and `rows_per_transfer` are for
        iterations. Outside of compiled code it waits for the values; use `Logger.log` there.

        Args:
            metrics: nested names (joined with `/`) to scalars, of which the mean over devices is
                taken, or to partials (`Mean`, `Sum`, `Max`, ...).
            step: global step, an integer scalar of 0 or more, the same on every device and process.
                A pair `(count, unit)` stands for their product, which may be larger than an int32:
                `(update, num_envs * num_steps)`. `unit` is a Python integer.
            axis_name: mesh axes to reduce over; `None` for those of the logger. Under a `vmap` over
                another axis the row is one of all its members, as that of `LoggingCallback` is.

        Raises:
            ValueError: if a metric or `step` is not a scalar, two metrics have one name,
                or `axis_name` is not in scope. All of this is found while tracing.
            TypeError: if a metric is not a number, a name is not a string, or `step` is not an
                integer.
            RuntimeError: if called outside of `jit` in a run of several processes.

        Example:
            ```python
            def update(params, step):
                params, loss = train_step(params, jnp.ones((8, 3)))
                logger.emit({"train": {"loss": loss}}, step)
                return params, None

            with Logger(JSONLBackend("logs"), "supervised") as logger:
                params, _ = jax.lax.scan(update, params, jnp.arange(100))
            ```
        """
        info = self._run.info
        check_scope(info.scope, info.group.process_count, "emit", self._sender.members)
        self._sender.emit(flatten(metrics), step, check_axis_name(axis_name))

    def state(self, timeout: float = 60.0) -> RunState:
        """The position of the run, to be saved in a checkpoint with the state of the training.

        All processes call it together, at a step boundary, and get the same. First the rows of all
        steps that were started are written and synced to the disk, so a checkpoint never claims one
        that is lost. (Rows buffered on the devices, see `rows_per_transfer`, are in the state of
        the callback: send them with `flush_state` first, or save that state as well.) A run opened
        again with `state=` continues from here: what earlier incarnations have logged after this is
        superseded.

        Args:
            timeout: how long process 0 waits for these rows, in seconds. If they are late that is a
                failure (see `failures`), and the next row then decides what is
                superseded.

        Raises:
            TimeoutError: if a process did not ask within 5 minutes more; the message names it.
            ValueError: if the name of the run is longer than 503 bytes.
        """
        start_step, records = self._run.position(timeout)
        return write_state(RestoredRun(self.name, self._run.info.identity, start_step, records))

    def flush(self, timeout: float = 60.0) -> None:
        """Wait until every row so far is in the journal and with every backend.

        Args:
            timeout: how long to wait at most, in seconds.

        Raises:
            TimeoutError: if something was not done in time; the message names it.
        """
        self._run.flush(timeout)

    def close(
        self, *, timeout: float = 60.0, raise_failures: bool = False, failed: bool = False
    ) -> None:
        """Write everything that is left and close the backends. A second call does nothing.

        It waits for no other process, and says on standard error what it waits for if that takes
        more than 5 seconds. What fails is recorded in `failures` and shown as a warning.
        Call it in the thread that has started the training steps: JAX knows of steps under way in
        their own thread only, so rows of steps that another thread has started may be missed.

        Args:
            timeout: how long to take at most, in seconds.
            raise_failures: raise what has failed, all of it as one group.
            failed: the run ended by an error: its state is `"failed"`. Else it is `"preempted"` if
                a signal was seen (see `handle_signals`), and `"finished"` if not.

        Raises:
            ExceptionGroup: if something failed and `raise_failures` is set.
        """
        self._run.close(failed, timeout)
        failures = self.failures
        if raise_failures and failures:
            raise ExceptionGroup(
                f"logging of the run {self.name!r} had {len(failures)} failures",
                [_as_error(failure) for failure in failures],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failed = error is not None
        if isinstance(error, SystemExit):
            # After a signal a program may leave with any status.
            failed = is_error(error.code) and not self._run.is_preempted
        self.close(failed=failed)


def _as_error(failure: Failure) -> Exception:
    error = RuntimeError(f"{failure.where}: {failure.message}")
    error.__cause__ = failure.error
    return error
