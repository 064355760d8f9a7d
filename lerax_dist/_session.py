"""A run as one process sees it, from its opening to its close."""

from collections.abc import Callable
from typing import Any, final

from lerax_dist._idle import IdleRun
from lerax_dist.cluster import ProcessGroup
from lerax_dist.host._lifecycle import Run
from lerax_dist.host._relay import RelayRun
from lerax_dist.host._signals import SignalWatch
from lerax_dist.journal._identity import Identity
from lerax_dist.process_logs import RunLogs


@final
class Session:
    """A run as one process sees it. Equal only to itself, so it never causes a retrace.

    Attributes:
        run: the run; idle on processes that do not write, a relay if they have a share in it.
        identity: who the run is.
        group: the processes that log together.
        scope: whether they run one program together ("global") or one each ("process").
        unsent: says which rows are still on the devices, if any; asked when the run is closed.
        backends: the backends that this process feeds.
        hparams: hyperparameters given by the user.
        signals: what watches for the end of the job; `None` if nobody asked for it.
    """

    def __init__(
        self,
        run: Run | RelayRun | IdleRun,
        identity: Identity,
        group: ProcessGroup,
        scope: str,
        backends: tuple[Any, ...],
        hparams: dict[str, Any],
        logs: RunLogs,
        handle_signals: bool,
    ) -> None:
        self.run = run
        self.identity = identity
        self.group = group
        self.scope = scope
        self.unsent: Callable[[], str | None] = lambda: None
        self.backends = backends
        self.hparams = hparams
        self.signals = SignalWatch(run.sync_soon) if handle_signals else None
        self._logs = logs
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
        if self.group.process_count == 1:
            return self._told
        told = self.group.gather(self._told, timeout=timeout, what="`preempted`")
        what = "the answer to `preempted`"
        self._heard = self.group.broadcast(any(told or ()), timeout=timeout, what=what)
        # A signal that has come since is for the next time: the others do not know of it yet.
        return self._heard

    def start_step(self, timeout: float, patience: float) -> int | None:
        """Where the run would go on if it were continued; the same on all that ask together.

        Args:
            timeout: how long process 0 waits for rows that are under way, in seconds.
            patience: how much later than another a process may ask, in seconds.

        Returns:
            The step after that of the last row; `None` if it is not known.

        Raises:
            TimeoutError: process 0 did not ask.
        """
        where = self.run.start_step(timeout)
        what = "where the run stands"
        return self.group.broadcast(where, timeout=timeout + patience, what=what)

    @property
    def takes_part(self) -> bool:
        """Whether what this process logs counts."""
        return self.scope == "process" or self.group.is_writer

    @property
    def _told(self) -> bool:
        return self._heard or (self.signals is not None and self.signals.seen)

    def close(self, failed: bool, timeout: float) -> None:
        """Close the run in the state that fits, and give the signals back."""
        unsent = self.unsent()
        if unsent is not None:
            self.run.failures.record("close", unsent)
        state = "failed" if failed else "preempted" if self._told else "finished"
        self.run.close(state, timeout)
        self._logs.close()
        if self.signals is not None:
            self.signals.remove()
