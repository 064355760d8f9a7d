"""A run on one process, from open to close, in one of three roles.

The *writer* (process 0) appends rows to the journal and feeds the backends. A *peer* sends rows to
the writer: all with `scope="process"`, else partials and samples of a plain loop. An *idle* process
(the others of compiled steps) sends nothing. The roles differ in their outlet; idle ones have none.
"""

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import HostCallback, Schema
from lerax_dist.cluster import Departure, ProcessGroup
from lerax_dist.host._clips import ClipSpec
from lerax_dist.host._closing_wait import ClosingWait
from lerax_dist.host._compare import Sample
from lerax_dist.host._exit_status import has_error_status, has_failed, watch_exit_status
from lerax_dist.host._queue import HostRow, Packet, RowQueue, TrainingStart
from lerax_dist.host._signals import SignalWatch
from lerax_dist.host._worker import AbstractOutlet, Ending, FlushMarker, Worker
from lerax_dist.journal import Event, Identity
from lerax_dist.process_logs import RunLogs

# A process may ask this much later than another, e.g. since it loads data, in seconds.
_AGREEMENT_TIMEOUT = 300.0
# Closing at the exit of the interpreter, in seconds.
_EXIT_TIMEOUT = 60.0
# The last clips of a run that did not finish, in seconds.
_CLIPS_TIMEOUT = 5.0
# Not seen while tracing, where a mesh has no devices.
_OTHER_MESH = (
    "the mesh does not start with a device of process 0 (build it from `jax.devices()` in their "
    "order)"
)
# A worker that is late gets this much longer to send what is left, in seconds.
_LATE_TIMEOUT = 2.0


class RunInfo(NamedTuple):
    """What a process knows of its run.

    Attributes:
        name: its name.
        directory: its folder.
        identity: its id, and its incarnation.
        scope: whether the processes run one program together (`"global"`) or one each
            (`"process"`).
        group: the processes that log together.
        hparams: hyperparameters that the user gave.
        backends: the backends of this process.
    """

    name: str
    directory: Path
    identity: Identity
    scope: str
    group: ProcessGroup
    hparams: dict[str, Any]
    backends: tuple[Any, ...]

    @property
    def is_first(self) -> bool:
        """Whether the first device of this process's program is the first of the run."""
        return self.scope == "global" or self.group.is_writer


@final
class Run:
    """A run on one process. Equal only to itself, so it never causes a retrace.

    Its host callbacks never raise: that would kill the step.

    Attributes:
        info: what this process knows of it.
        failures: what has failed.
        is_closed: whether it accepts no more rows.
        is_written_here: whether the values of this process count.
        unsent: returns which rows are still on the devices, if any; reported when the run closes.
    """

    def __init__(
        self,
        info: RunInfo,
        queue: RowQueue,
        outlet: AbstractOutlet | None,
        failures: Failures,
        *,
        logs: RunLogs | None,
        handle_signals: bool,
        wait_for_callbacks: Callable[[float], str | None],
    ) -> None:
        """
        Args:
            info: what this process knows of the run.
            queue: where rows wait for the outlet.
            outlet: where they go; `None` if this process writes nothing.
            failures: where to record what fails.
            logs: the text logs of the run, closed with it; `None` for none.
            handle_signals: whether to watch for SIGTERM and SIGUSR1.
            wait_for_callbacks: waits, at most that many seconds, until the devices have delivered
                all rows; returns what is missing, if anything.
        """
        self.info = info
        self.failures = failures
        self.is_closed = False
        counts = info.group.is_writer or info.scope == "process"
        self.is_written_here = outlet is not None and counts
        # What is only compared on process 0 is not worth a wait.
        self._has_rows = self.is_written_here
        self.unsent: Callable[[], str | None] = lambda: None
        self._queue = queue
        self._outlet = outlet
        self._worker = None if outlet is None else Worker(queue, outlet, failures)
        self._clips = None if outlet is None else outlet.clips
        self._logs = logs
        self._wait_for_callbacks = wait_for_callbacks
        self._pid = os.getpid()
        # Whether a training was compiled, and whether anything has arrived from it.
        self._is_compiled = self._has_arrived = False
        self._exit_lock = threading.Lock()
        self._is_ended = False
        self._last: FlushMarker | None = None
        self._opened = time.monotonic()
        # A signal that another process saw, when all were asked.
        self._peer_preempted = False
        group, identity = info.group, info.identity
        self._departure: Departure | None = None
        if group.process_count > 1:
            self._departure = group.departure(f"{identity.run_id}/{identity.incarnation}")
        self._signals = SignalWatch(self._sync_soon) if handle_signals else None
        if self._signals is not None:
            self._signals.install()

    def start(self, open_timeout: float) -> None:
        """Start the threads; the writer waits at most `open_timeout` seconds for its backends."""
        watch_exit_status()
        self._close_at_exit()
        if self._departure is not None and self._signals is not None:
            signals = self._signals
            self._departure.watch(lambda: signals.seen)
        if self._worker is not None and self._outlet is not None:
            # Its thread, which the exit of the interpreter may need and could not start.
            self._wait_for_callbacks(0.0)
            self._worker.start()
            self._outlet.start(open_timeout, self._close_at_exit)

    def row_callback(self, schema: Schema, stride: int) -> HostCallback:
        """What takes the rows of one schema from the devices; they are `stride` iterations apart.

        It copies, queues, returns.
        """
        # Weak: JAX's caches of what ran outside of `jit` keep callbacks for good, but must not keep
        # the backends and the journal of a closed run.
        this = weakref.ref(self)
        queue, failures, dropped = self._queue, self.failures, self._dropped_row
        self._is_compiled = True

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                begin = time.perf_counter()
                run = this()
                if run is None or run.is_closed or not run.is_written_here:
                    failures.record("callback", dropped)
                    return
                run._has_arrived = True
                # A copy, not a view: the runtime may reuse the buffer once this returns.
                copy = np.asarray(payload).copy()
                packet = Packet(schema, part, parts, copy, stride, time.time(), begin)
                queue.put_row(packet, copy.nbytes, begin)
            except Exception as error:
                failures.record("callback", f"could not enqueue a row ({error!r})", error)

        return deliver

    @property
    def _dropped_row(self) -> str:
        if self.is_written_here:
            return "received a row after `close()`; dropped it"
        return (
            f"process {self.info.group.process_index} received a row but only process 0 "
            "writes; dropped the row. Either each process runs its own program (pass "
            f'`scope="process"`), or {_OTHER_MESH}.'
        )

    def start_callback(
        self,
        stride: int,
        total: int | None,
        iterations: int,
        hparams: dict[str, Any],
        are_members: bool,
    ) -> HostCallback:
        """What takes the start of a training from the devices, for `TrainingStart`.

        `total` are the steps of one program; `None` if the payload holds them.
        """
        # Where each process knows of its own program only, the steps of all are summed; not those
        # of members, whose rows have the step of one.
        sums_steps = self.info.scope == "process" and not are_members
        programs = self.info.group.process_count if sums_steps else 1
        # Weak, see `row_callback`.
        this, failures = weakref.ref(self), self.failures
        self._is_compiled = True

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                iteration, sent = np.asarray(payload).tolist()
                # On the host, whose integers do not overflow.
                steps = (sent if total is None else total) * programs
                now = (time.time(), time.perf_counter())
                run = this()
                if run is not None:
                    run._has_arrived = True
                    if run._clips is not None:
                        run._clips.forget_parts()
                    run.put(TrainingStart(stride, iteration, steps, iterations, hparams, *now))
            except Exception as error:
                failures.record(
                    "callback", f"could not enqueue the start of a training ({error!r})", error
                )

        return deliver

    def clip_callback(self, spec: ClipSpec) -> HostCallback:
        """What takes clips from the devices; process 0 keeps its own."""
        if self._clips is None:
            return lambda part, parts, payload: None
        return self._clips.clip_callback(spec)

    def disable_clips(self, error: Exception) -> None:
        """Record no more clips, because of an error."""
        if self._clips is not None:
            self._clips.disable_clips(error)

    def log(self, row: HostRow, size: int, begin: float) -> None:
        """Queue a row from a plain loop, see `RowQueue.put_row`."""
        if self._outlet is None:
            return
        if os.getpid() == self._pid or not self._is_forked:  # one call less, see `Logger.log`
            self._has_rows = True
            self._queue.put_row(row, size, begin)

    def log_clip(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        """Keep a clip from a plain loop; process 0 keeps its own."""
        if self._clips is not None and not self._is_forked:
            self._clips.frames(tag, frames, step, fps)

    def put(self, event: Event | TrainingStart | Sample) -> None:
        """Queue an event, which the writer keeps of its own only, or a sample."""
        if self._outlet is not None and not self._is_forked:
            self._queue.put(event)

    @property
    def _is_forked(self) -> bool:
        """Whether this is a fork of the process of this run: it has none of its threads."""
        if os.getpid() == self._pid:
            return False
        self.failures.record(
            "log", "was called in a forked process, which writes nothing; log in its parent"
        )
        return True

    def _mark(self, *, sync: bool = False) -> FlushMarker:
        marker = FlushMarker(sync=sync)
        self._queue.put(marker)
        return marker

    def _sync_soon(self) -> None:
        """Have every row so far synced to the disk. For a signal handler: takes no lock."""
        if self._outlet is not None:
            self._queue.put(FlushMarker(sync=True, urgent=True))

    def flush(self, timeout: float) -> None:
        """Wait until every row and clip so far is in the journal and with every backend; on a peer,
        until it is sent.

        Raises:
            TimeoutError: if something was not done in time; the message names it.
        """
        if not self._has_rows or self.is_closed or os.getpid() != self._pid:
            return
        assert self._outlet is not None
        deadline = time.monotonic() + timeout
        missing = self._wait_for_callbacks(timeout)
        marker = self._mark()
        if marker.wait(deadline) and self._clips is not None and self._clips.opened:
            clips = self._clips.wait(max(deadline - time.monotonic(), 0.0))
            missing = missing or (f"{clips} clips are not rendered yet" if clips else None)
            marker = self._mark()
        if not marker.wait(deadline):
            missing = missing or self._outlet.late_message
        missing = missing or self._outlet.flush(marker, deadline)
        if missing:
            raise TimeoutError(f"`flush` timed out after {timeout:g} s: {missing}")

    def position(self, timeout: float) -> tuple[int | None, int]:
        """The step after that of the last row, and the number of records, once all are on the disk.

        The same on all processes, which ask together. `None` for a step that is not known, and 0
        records if the writer could not write these rows in `timeout` seconds.

        Raises:
            TimeoutError: if process 0 did not ask.
        """
        if self._is_forked:
            return None, 0
        group, what = self.info.group, "the step of the last row"
        found = self._written(timeout) if group.is_writer else None
        step, records = group.broadcast(found, timeout=timeout + _AGREEMENT_TIMEOUT, what=what)
        return step, records

    def _written(self, timeout: float) -> tuple[int | None, int]:
        assert self._outlet is not None
        deadline = time.monotonic() + timeout
        missing = None if self.is_closed else self._wait_for_callbacks(timeout)
        marker = self._last or self._mark(sync=True)
        if not missing and marker.wait(deadline):
            return marker.start_step, marker.end
        missing = missing or self._outlet.late_message
        self.failures.record("state", f"the last row is unknown after {timeout:g} s: {missing}")
        return None, 0

    def preempted(self) -> bool:
        """Whether to leave, as a signal has reached any process; the same answer on all, which ask
        equally often."""
        group = self.info.group
        if self._is_forked:
            return self.is_preempted
        if self._departure is not None:
            return self._signals is not None and self._departure.reached()
        if group.process_count == 1:
            return self._signals is not None and self._signals.seen
        found = group.gather(self.is_preempted, timeout=_AGREEMENT_TIMEOUT, what="`preempted`")
        what = "the answer to `preempted`"
        # A signal that arrived since is for the next call: the others do not know of it yet.
        answer = group.broadcast(any(found or ()), timeout=_AGREEMENT_TIMEOUT, what=what)
        self._peer_preempted = answer
        return answer

    @property
    def is_preempted(self) -> bool:
        """Whether a signal has reached this process while the run was open, or another one as far
        as this one knows; also if only another logger of this process handles signals."""
        noticed = self._departure is not None and self._departure.noticed
        seen = self._signals is not None and self._signals.seen
        return noticed or seen or self._peer_preempted or SignalWatch.last >= self._opened

    def close(self, failed: bool, timeout: float) -> None:
        """Write or send everything that is left, and release everything, within `timeout` seconds;
        what is late is reported. `failed` is whether the run ended by an error.

        A second call does nothing, unless the first was interrupted: then it resumes there.
        """
        if os.getpid() != self._pid:
            return
        if not self._is_ended:
            self._end(failed, timeout)
        # Each time: Ctrl-C may have cut this off before.
        atexit.unregister(self._at_exit)
        try:
            if self._logs is not None:
                self._logs.close()
        finally:
            if self._signals is not None:
                self._signals.remove()

    def _end(self, failed: bool, timeout: float) -> None:
        unsent = self.unsent()
        if unsent is not None:
            self.failures.record("close", unsent)
        is_missed = self._is_compiled and not self._has_arrived and self.is_written_here
        if is_missed and self.info.group.process_count > 1 and not failed:
            self.failures.record(
                "callback",
                "a training was compiled, but nothing of it has reached process 0: it did not run "
                f"or logged no iteration, or its rows were dropped, as {_OTHER_MESH}",
            )
        state = "failed" if failed else "preempted" if self.is_preempted else "finished"
        if self._departure is not None:
            state = self._departure.close(state)
        # The end of a process that sends no rows is a courtesy; a failed one must not be kept.
        if self._outlet and self._worker and (self._has_rows or not failed):
            self._drain(self._outlet, self._worker, state, timeout)
        self.is_closed = True
        # Only now: if this was interrupted, the next call or the interpreter's exit resumes it.
        self._is_ended = True

    def _drain(self, outlet: AbstractOutlet, worker: Worker, state: str, timeout: float) -> None:
        timeout = timeout if self._has_rows else min(timeout, _LATE_TIMEOUT)
        deadline = time.monotonic() + timeout
        waiting = ClosingWait(self.info.name, timeout)
        # Ctrl-C may have come before it ran. Without a thread there is nothing more to write.
        with contextlib.suppress(RuntimeError):
            worker.start()
        if self._last is None:
            missing = waiting.call(self._wait_for_callbacks, timeout / 2)
            if missing:
                self.failures.record("close", missing)
            self.is_closed = True
            if self._clips is not None and self._clips.opened:
                # A job that did not finish has little time left; rows and local files come first.
                limit = max(deadline - time.monotonic(), 0.0) / 2
                limit = limit if state == "finished" else min(limit, _CLIPS_TIMEOUT)
                clips_deadline = time.monotonic() + limit
                # Clips find their rows before the last of them are rendered.
                late = outlet.late_message
                reached = self._mark(sync=True).reached
                waiting.wait(reached.wait, clips_deadline, lambda: late)
                self._clips.close(max(clips_deadline - time.monotonic(), 0.0))
            if outlet.await_sample():
                # The worker compares it, before what has failed is written.
                self._queue.put(seen := FlushMarker(urgent=True))
                seen.reached.wait(max(deadline - time.monotonic(), 0.0))
            now = time.monotonic()
            ending = Ending(state, now + 0.7 * max(deadline - now, 0.0))
            self._last = FlushMarker(ending=ending)
        # Each time: this may have been interrupted before. The worker ignores the second.
        self._queue.put(self._last)
        late = outlet.late_message
        written = waiting.wait(self._last.reached.wait, deadline, lambda: late)
        if not written and self._has_rows:
            self.failures.record("close", f"{outlet.late_message} after {timeout:g} s")
        outlet.close(written, deadline, waiting)
        if not self.info.group.is_writer:
            # It may still send what is left.
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
        # After a signal a program may leave with any status.
        failed = has_failed() or has_error_status() and not self.is_preempted
        self.close(failed, timeout=_EXIT_TIMEOUT)
