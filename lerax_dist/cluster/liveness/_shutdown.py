"""Liveness monitoring and orderly shutdown of the joined processes."""

import atexit
import contextlib
import os
import socket
import time
from typing import final

import jax

from lerax_dist.cluster._group import name_processes
from lerax_dist.cluster._store import Unanswered, joined_address, joined_client, joined_place
from lerax_dist.cluster.liveness._exit import delay_abort, skip_shutdown_barrier
from lerax_dist.cluster.liveness._heartbeat import choose_timing, is_consequence
from lerax_dist.cluster.liveness._monitor import (
    FOLDER,
    WRITE_TIMEOUT,
    HeartbeatMonitor,
    check_service,
    own_failure,
)
from lerax_dist.cluster.liveness._step import FAILURE_GRACE, QUIET_WAIT, Setup

_POLL_INTERVAL = 0.05
# Reads per second of how all processes ended, by those that wait.
_MAX_READS = 50.0
# Between the last message of a process and its exit, for which it still needs the service.
_EXIT_TIME = 2.0


def start_liveness(heartbeat_timeout: float, shutdown_timeout: float) -> None:
    """Monitor the processes that have joined, and shut down in order at exit.

    The arguments are `heartbeat_timeout_seconds` and `shutdown_timeout_seconds` of `initialize`.
    """
    delay_abort()
    index, count = joined_place()
    # With this setting the others are meant to continue, as far as JAX allows it.
    recoverable = bool(getattr(jax.config, "jax_enable_recoverability", False))
    timing = choose_timing(heartbeat_timeout, count)
    monitor = HeartbeatMonitor(Setup(index, count, socket.gethostname(), timing, recoverable))
    monitor.start()
    atexit.register(ShutdownHook(monitor, shutdown_timeout))


@final
class ShutdownHook:
    """Runs when the interpreter exits, before JAX's hook and after the loggers' close.

    Each process publishes how it ended. If all programs have ended without an exception JAX's
    shutdown follows, whose barrier all pass at once. Else this process skips it, so that a failure
    blocks no process; process 0, which holds the service that the others need, waits until they
    have gone. The exit status is never changed.
    """

    def __init__(self, monitor: HeartbeatMonitor, timeout: float) -> None:
        self._pid = os.getpid()
        self._monitor = monitor
        self._store = monitor.store
        self._setup = monitor.state.setup
        self._timeout = timeout
        self._log_wait_at = float("inf")

    def __call__(self) -> None:
        """Shut down."""
        if os.getpid() != self._pid:  # a fork, which has joined nothing and has no threads
            skip_shutdown_barrier()
            return
        if joined_client() is not self._monitor.client:  # it has called JAX's shutdown itself
            self._monitor.stop()
            return
        self._monitor.leaving.set()
        self._log_wait_at = time.monotonic() + QUIET_WAIT + self._setup.index / _MAX_READS
        deadline = time.monotonic() + self._timeout
        try:
            # What the thread has concluded may have ended since, above all if this process itself
            # stood still: look again before leaving for that.
            state, longest = self._monitor.state, self._setup.timing.interval + WRITE_TIMEOUT
            if state.lost or time.monotonic() - state.now > longest:
                self._monitor.turn()
            leave = self._leave_last if self._setup.index == 0 else self._leave
            all_finished = leave(own_failure(), deadline)
        except RuntimeError as error:
            self._monitor.report_lost_service(str(error))
            all_finished = False
        self._monitor.stop()
        if not all_finished:
            skip_shutdown_barrier()

    def _leave(self, failure: str, deadline: float) -> bool:
        """Another process than 0. Whether all have ended without an exception."""
        self._publish_end(failure, deadline)
        if failure:
            if is_consequence(failure):
                self._wait_for_cause()
            return False
        while time.monotonic() < deadline and not self._monitor.state.must_leave:
            soon = min(deadline, time.monotonic() + 1.0)
            if self._store.get(f"{FOLDER}/all_finished", soon) is not None:
                return True
            if time.monotonic() > self._log_wait_at:
                with contextlib.suppress(Unanswered):  # it may only stand still for a while
                    self._log_wait(self._missing(WRITE_TIMEOUT))
        if self._monitor.state.must_leave:
            self._wait_for_cause()
        else:
            self._give_up(self._missing(WRITE_TIMEOUT))
        return False

    def _leave_last(self, failure: str, deadline: float) -> bool:
        """Process 0. Whether all have ended without an exception."""
        self._publish_end(failure, deadline)
        while not (failure or self._monitor.state.must_leave or self._monitor.state.lost):
            missing = self._missing()
            # They finished, and may have left while this process stood still.
            unconfirmed = self._monitor.state.unconfirmed
            if not missing and not unconfirmed:
                self._store.put(f"{FOLDER}/all_finished", "")
                return True
            if not missing and unconfirmed <= self._monitor.state.unresponsive.keys():
                break
            self._log_wait(missing)
            if time.monotonic() > deadline:
                failure = self._give_up(missing)
                break
            time.sleep(_POLL_INTERVAL)
        if not failure or is_consequence(failure):
            self._wait_for_cause()
        self._wait_until_gone()
        return False

    def _wait_until_gone(self) -> None:
        """Process 0: wait until the others have gone or are lost, but not for long."""
        timing = self._setup.timing
        limit = 2 * timing.interval + timing.give_up + 2 * FAILURE_GRACE
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and set(self._missing()) - self._monitor.state.lost:
            time.sleep(_POLL_INTERVAL)
        time.sleep(_EXIT_TIME)

    def _wait_for_cause(self) -> None:
        """The first error may come before it is known which process was lost."""
        timing = self._setup.timing
        self._monitor.wait_for(lambda s: s.cause_known, timing.timeout + 4 * timing.interval)

    def _missing(self, timeout: float | None = None) -> list[int]:
        """The processes that have not published how they ended."""
        ends = self._store.list(f"{FOLDER}/ends", within=timeout)
        return [i for i in range(self._setup.count) if str(i) not in ends]

    def _publish_end(self, failure: str, deadline: float) -> None:
        """Publish how this process ended; while process 0 stands still, try again.

        Raises:
            RuntimeError: process 0 is lost, or there was no answer until the deadline.
        """
        # Known at once, while a message would wait for an answer; JAX gives 6 s in this case.
        if self._setup.index != 0:
            check_service(joined_address())
        while True:
            try:
                key = f"{FOLDER}/ends/{self._setup.index}"
                self._store.put(key, failure, within=WRITE_TIMEOUT)
                return
            except Unanswered:
                if self._monitor.state.must_leave or time.monotonic() > deadline:
                    raise

    def _log_wait(self, missing: list[int]) -> None:
        """Log once for which processes this one waits, and not at once."""
        if missing and time.monotonic() > self._log_wait_at:
            self._log_wait_at = float("inf")
            self._monitor.log(
                f"this process has finished and waits for {name_processes(missing)}, at most "
                f"`shutdown_timeout_seconds` = {self._timeout:g} s in all"
            )

    def _give_up(self, missing: list[int]) -> str:
        """Log and publish that the wait of this process has timed out."""
        limit = f"`shutdown_timeout_seconds` = {self._timeout:g} s"
        waited = f"has waited {limit} for {name_processes(missing)}"
        self._monitor.log(f"this process finished, {waited} and exits now")
        reason = f"it finished and {waited}"
        self._publish_end(reason, deadline=0.0)
        return reason
