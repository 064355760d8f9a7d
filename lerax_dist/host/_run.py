"""A run on one process, from open to close, in one of three roles.

The *writer* (process 0) appends rows to the journal and feeds the backends. A *peer* (the other
processes of `scope="process"`) sends its rows to the writer. An *idle* process (the others of
`scope="global"`) writes nothing. The roles differ in their outlet; an idle run has none.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import HostCallback, Schema
from lerax_dist.cluster import Mailbox, ProcessGroup
from lerax_dist.host._clips import ClipRenderer, ClipSpec
from lerax_dist.host._journal_outlet import JournalOutlet
from lerax_dist.host._peer_outlet import PeerOutlet
from lerax_dist.host._queue import PAUSE, RowQueue
from lerax_dist.host._signals import SignalWatch
from lerax_dist.host._sink import HostRow, Sink, TrainingStart, drop_stray_rows, ignore
from lerax_dist.host._worker import AbstractOutlet, FlushMarker, Worker
from lerax_dist.journal import Event, Identity, Journal
from lerax_dist.process_logs import RunLogs

# A process may ask this much later than another, e.g. since it loads data, in seconds.
AGREEMENT_TIMEOUT = 300.0
# Closing a run that could not start, in seconds.
_ABORT_TIMEOUT = 5.0
# Closing at the exit of the interpreter, in seconds.
_EXIT_TIMEOUT = 60.0
# The last clips of a run that did not finish, in seconds.
_CLIPS_TIMEOUT = 5.0
# A worker that is late gets this much longer to send what is left, in seconds.
_LATE_TIMEOUT = 2.0
# A process that does not write wakes its worker once a second only.
_PEER_PAUSE = 1.0


class RunInfo(NamedTuple):
    """What all processes know of a run.

    Attributes:
        name: its name.
        directory: its folder.
        identity: its id, and its incarnation.
        scope: whether the processes run one program together (`"global"`) or one each
            (`"process"`).
        group: the processes that log together.
        hparams: hyperparameters that the user gave.
    """

    name: str
    directory: Path
    identity: Identity
    scope: str
    group: ProcessGroup
    hparams: dict[str, Any]


class WriterParts(NamedTuple):
    """What only the writer has.

    Attributes:
        journal: the journal, open and locked.
        facts: what the journal says about the run, fit for JSON.
        start_step: where a continued run goes on: rows of earlier incarnations at or after it are
            superseded; `None` for the step of the first row.
        hosts: host of every process whose rows are merged, this one's first.
    """

    journal: Journal
    facts: dict[str, Any]
    start_step: int | None
    hosts: tuple[str, ...]


@final
class Run:
    """A run on one process. Equal only to itself, so it never causes a retrace.

    Attributes:
        info: what all processes know of it.
        backends: the backends of this process.
        failures: what has failed.
        is_closed: whether it accepts no more rows.
        is_written_here: whether the values of this process count.
        unsent: returns which rows are still on the devices, if any; reported when the run closes.
    """

    def __init__(
        self,
        info: RunInfo,
        backends: tuple[Any, ...],
        writer: WriterParts | None,
        mailbox: Mailbox | None,
        failures: Failures,
        *,
        logs: RunLogs,
        handle_signals: bool,
        wait_for_callbacks: Callable[[float], str | None],
    ) -> None:
        """
        Args:
            info: what all processes know of the run.
            backends: the backends of this process.
            writer: what only the writer has; `None` on the other processes.
            mailbox: the channel from the peers to the writer; `None` if there are no peers.
            failures: where to record what fails.
            logs: the text logs of the run, closed with it.
            handle_signals: whether to watch for SIGTERM and SIGUSR1.
            wait_for_callbacks: waits (at most so many seconds) until the devices have delivered all
                rows; returns what is missing, if anything.
        """
        self.info = info
        self.backends = backends
        self.failures = failures
        self.is_closed = False
        self.unsent: Callable[[], str | None] = lambda: None
        self._logs = logs
        self._wait_for_callbacks = wait_for_callbacks
        self._pid = os.getpid()
        self._exit_lock = threading.Lock()
        self._is_ended = False
        self._last: FlushMarker | None = None
        # A signal that another process saw, when all were asked.
        self._peer_preempted = False
        self.is_written_here = writer is not None or mailbox is not None
        self._queue = RowQueue(failures, pause=_PEER_PAUSE if writer is None else PAUSE)
        self._sink = Sink(self._queue, failures)
        self._clips: ClipRenderer | None = None
        self._journal_outlet: JournalOutlet | None = None
        self._outlet: AbstractOutlet | None = None
        self._worker: Worker | None = None
        if writer is not None:
            self._clips = ClipRenderer(self._queue.put, info.directory, failures)
            self._outlet = self._journal_outlet = JournalOutlet(
                info.name,
                backends,
                writer.journal,
                info.identity,
                self._queue,
                self._clips,
                failures,
                hosts=writer.hosts,
                mailbox=mailbox,
                has_start_step=writer.start_step is not None,
                on_open=self._close_at_exit,
            )
            place = {"name": info.name, "pid": self._pid, "host": info.group.hostname}
            self.put(Event(time.time(), "open", place | info.identity._asdict() | writer.facts))
            if info.identity.incarnation > 1 and writer.start_step is not None:
                self.put(Event(time.time(), "resume", {"start_step": writer.start_step}))
        elif mailbox is not None:
            self._outlet = PeerOutlet(mailbox, failures)
        if self._outlet is not None:
            self._worker = Worker(self._queue, self._outlet, failures)
        self._signals = SignalWatch(self._sync_soon) if handle_signals else None
        if self._signals is not None:
            self._signals.install()

    def start(self, open_timeout: float) -> None:
        """Start the threads; the writer waits at most `open_timeout` seconds for its backends."""
        if self._worker is None or self._outlet is None:
            return
        self._close_at_exit()
        try:
            self._worker.start()
            self._outlet.start(open_timeout)
        except BaseException:
            # Ctrl-C, for instance. The caller never gets the run, so it could not close it.
            self.close(failed=True, timeout=_ABORT_TIMEOUT)
            raise

    def why_unopened(self, backend: Any) -> str | None:
        """Why a backend of the writer is not open; `None` if it is."""
        outlet = self._journal_outlet
        return None if outlet is None else outlet.why_unopened(backend)

    def row_callback(self, schema: Schema, stride: int) -> HostCallback:
        """What takes rows from the devices, see `Sink.rows`."""
        if self._outlet is None:
            return drop_stray_rows(self.info.group.process_index, self.failures)
        return self._sink.rows(schema, stride)

    def start_callback(
        self, stride: int, total: int | None, iterations: int, hparams: dict[str, Any]
    ) -> HostCallback:
        """What takes the start of a training from the devices.

        Args:
            stride: distance between the iterations that are logged.
            total: global steps of one program; `None` if the payload holds them.
            iterations: iterations that it takes; 0 if unknown.
            hparams: hyperparameters to log.
        """
        if self._outlet is None:
            return ignore
        # Where each process knows of its own program only, the steps of all are summed.
        programs = self.info.group.process_count if self.info.scope == "process" else 1
        steps = None if total is None else total * programs
        return self._sink.start(stride, steps, iterations, hparams, programs)

    def clip_callback(self, spec: ClipSpec) -> HostCallback:
        """What takes clips from the devices; process 0 keeps its own."""
        return ignore if self._clips is None else self._clips.clip_callback(spec)

    def disable_clips(self, error: Exception) -> None:
        """There will be no clips, because of an error."""
        if self._clips is not None:
            self._clips.disable_clips(error)

    def log(self, row: HostRow, size: int, begin: float) -> None:
        """Queue a row from a plain loop.

        Args:
            row: the row.
            size: about how many bytes it takes.
            begin: when the call that logs it began, by `time.perf_counter`.
        """
        if os.getpid() != self._pid:
            self.failures.record(
                "log", "was called in a forked process, which writes nothing; log in its parent"
            )
            return
        self._queue.put_row(row, size, begin)

    def log_clip(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        """Keep a clip from a plain loop; process 0 keeps its own."""
        if self._clips is not None:
            self._clips.frames(tag, frames, step, fps)

    def put(self, event: Event | TrainingStart) -> None:
        """Queue an event; the writer keeps its own."""
        if self._outlet is not None:
            self._queue.put(event)

    def _mark(self, **options: Any) -> FlushMarker:
        marker = FlushMarker(**options)
        self._queue.put(marker)
        return marker

    def _sync_soon(self) -> None:
        """Have every row so far synced to the disk. For a signal handler: takes no lock."""
        if self._outlet is not None:
            self._mark(sync=True, urgent=True)

    def flush(self, timeout: float) -> None:
        """Wait until every row and clip so far is in the journal and with every backend; on a peer,
        until it is sent.

        Raises:
            TimeoutError: if something was not done in time; the message says what.
        """
        if self._outlet is None or self.is_closed or os.getpid() != self._pid:
            return
        deadline = time.monotonic() + timeout
        missing = self._wait_for_callbacks(timeout)
        marker = self._mark()
        if self._reached(marker, deadline) and self._clips is not None and self._clips.opened:
            clips = self._clips.wait(max(deadline - time.monotonic(), 0.0))
            missing = missing or (f"{clips} clips are not rendered" if clips else None)
            marker = self._mark()
        if not self._reached(marker, deadline):
            missing = missing or self._outlet.describe_delay()
        missing = missing or self._outlet.flush(marker, deadline)
        if missing:
            raise TimeoutError(f"`flush` timed out after {timeout:g} s: {missing}")

    @staticmethod
    def _reached(marker: FlushMarker, deadline: float) -> bool:
        return marker.reached.wait(max(deadline - time.monotonic(), 0.0))

    def start_step(self, timeout: float) -> int | None:
        """Where the run would go on if it were continued; the same on all that ask together.

        Args:
            timeout: how long the writer waits for rows that are not written yet, in seconds.

        Returns:
            The step after that of the last row, once all rows so far are on the disk; `None` if it
            is not known.

        Raises:
            TimeoutError: if process 0 did not ask.
        """
        step = self._written_step(timeout) if self._clips is not None else None
        what = "the step of the last row"
        return self.info.group.broadcast(step, timeout=timeout + AGREEMENT_TIMEOUT, what=what)

    def _written_step(self, timeout: float) -> int | None:
        assert self._outlet is not None
        deadline = time.monotonic() + timeout
        missing = None if self.is_closed else self._wait_for_callbacks(timeout)
        marker = self._last or self._mark(sync=True)
        if not missing and self._reached(marker, deadline):
            return marker.start_step
        missing = missing or self._outlet.describe_delay()
        self.failures.record("state", f"the last row is unknown after {timeout:g} s: {missing}")
        return None

    def preempted(self) -> bool:
        """Whether a signal has reached any process; the same answer on all that ask together.

        Raises:
            TimeoutError: if a process did not ask.
        """
        group = self.info.group
        if group.process_count == 1:
            return self._is_preempted
        found = group.gather(self._is_preempted, timeout=AGREEMENT_TIMEOUT, what="`preempted`")
        what = "the answer to `preempted`"
        # A signal that has come since is for the next time: the others do not know of it yet.
        answer = group.broadcast(any(found or ()), timeout=AGREEMENT_TIMEOUT, what=what)
        self._peer_preempted = answer
        return answer

    @property
    def _is_preempted(self) -> bool:
        return self._peer_preempted or (self._signals is not None and self._signals.seen)

    def close(self, failed: bool, timeout: float) -> None:
        """Write or send everything that is left, and release everything.

        A second call does nothing, unless the first was interrupted: then it resumes there.

        Args:
            failed: whether the run ended by an error.
            timeout: how long to take at most, in seconds. What is late is reported.
        """
        if self._is_ended or os.getpid() != self._pid:
            return
        unsent = self.unsent()
        if unsent is not None:
            self.failures.record("close", unsent)
        if self._outlet is not None and self._worker is not None:
            state = "failed" if failed else "preempted" if self._is_preempted else "finished"
            self._drain(self._outlet, self._worker, state, timeout)
        self.is_closed = True
        # Only now: if this was interrupted, the next call or the interpreter's exit resumes it.
        self._is_ended = True
        atexit.unregister(self._at_exit)
        self._logs.close()
        if self._signals is not None:
            self._signals.remove()

    def _drain(self, outlet: AbstractOutlet, worker: Worker, state: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if self._last is None:
            missing = self._wait_for_callbacks(timeout / 2)
            if missing:
                self.failures.record("close", missing)
            self.is_closed = True
            self._sink.close()
            # A job that did not finish has little time left; rows and local files come first.
            limit = max(deadline - time.monotonic(), 0.0) / 2
            limit = limit if state == "finished" else min(limit, _CLIPS_TIMEOUT)
            clips_deadline = time.monotonic() + limit
            if self._clips is not None and self._clips.opened:
                # Clips find their rows before the last of them are rendered.
                self._reached(self._mark(sync=True), clips_deadline)
            for event in outlet.finish(state, clips_deadline):
                self._queue.put(event)
            patience = time.monotonic() + 0.7 * timeout
            self._last = self._mark(last=True, state=state, deadline=patience)
        written = self._reached(self._last, deadline)
        if not written:
            self.failures.record("close", f"{outlet.describe_delay()} after {timeout:g} s")
        outlet.close(written, deadline, timeout)
        if self._clips is None:
            worker.join(max(deadline - time.monotonic(), _LATE_TIMEOUT))

    def _close_at_exit(self) -> None:
        """Close when the interpreter exits, unless the run is closed by then.

        Exit handlers run in reverse order. So this is registered again after each backend that
        opens, to run before what that backend has registered: it still works then.
        """
        with self._exit_lock:
            atexit.unregister(self._at_exit)
            if not self.is_closed:
                atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        # The interpreter sets this when the program ends by an uncaught exception.
        failed = getattr(sys, "last_value", None) is not None
        self.close(failed, timeout=_EXIT_TIMEOUT)
