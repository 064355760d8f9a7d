"""One run on the process that writes it: from open to close, whatever happens in between."""

import atexit
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

from lerax_dist._failures import Failure, Failures
from lerax_dist.host._clips import ClipRenderer
from lerax_dist.host._gather import Gathering
from lerax_dist.host._gauges import Gauges
from lerax_dist.host._post import Post
from lerax_dist.host._pump import Pump, labels
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._sink import HostRow, Sink
from lerax_dist.host._token import Token
from lerax_dist.host._writer import Writer
from lerax_dist.journal._identity import Identity
from lerax_dist.journal._journal import Journal
from lerax_dist.journal._record import Event


class Others(NamedTuple):
    """The other processes that have a share in every row, in `scope="process"`.

    Attributes:
        hosts: host of every process, this one's first.
        mailbox: where their shares come from.
    """

    hosts: list[str]
    mailbox: Any


_CLIPS_IN_A_HURRY = 5.0
"""Seconds that the last clips get when a run does not end by itself."""
_CLOSE_UNBORN = 5.0
"""Seconds that the end of a run gets that could not start."""


@final
class Run:
    """A run that is being written: queue, writer, journal, and a pump for each backend."""

    def __init__(
        self,
        name: str,
        backends: Sequence[Any],
        journal: Journal,
        failures: Failures,
        identity: Identity,
        facts: dict[str, Any],
        *,
        start_step: int | None = None,
        others: Others | None = None,
        open_timeout: float,
        settle: Callable[[float], str | None],
    ) -> None:
        """Open every backend.

        A backend that fails to open is left out with a warning; one that takes longer than
        `open_timeout` gets its rows when it is ready.

        Args:
            name: name of the run.
            backends: backends to feed.
            journal: journal of the run, open.
            failures: where to keep what goes wrong.
            identity: who the run is.
            facts: what the journal shall say about the run, fit for JSON.
            start_step: where a continued run goes on: rows of earlier incarnations at or after it
                are superseded; `None` for the step of the first row.
            others: processes that have a share in every row; `None` if rows come whole.
            open_timeout: how long to wait for backends, in seconds.
            settle: waits (at most so many seconds) until the devices have delivered all rows;
                says what is missing, if anything.
        """
        self.name = name
        self.identity = identity
        self.directory = journal.path.parent
        self.failures = failures
        self._settle = settle
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.closed = False
        self._ended = False
        self._stop: Token | None = None
        self._queue = queue = RowQueue(failures)
        self.sink = Sink(queue, self.failures)
        self._journal = journal
        resumes = identity.incarnation > 1
        self.clips = ClipRenderer(queue.put, self.directory, self.failures)
        gathering = Gathering(others.hosts if others else [socket.gethostname()], failures)
        self._writer = Writer(
            queue,
            journal,
            failures,
            self.clips,
            resumes=resumes,
            gathering=gathering,
            gauges=Gauges(queue, self._lags).of,
        )
        self._post = None
        if others is not None:
            self._post = Post(
                others.mailbox, len(others.hosts), queue, gathering.is_ahead, failures
            )
        self._pumps = [
            Pump(backend, label, name, identity, journal, failures, self._close_at_exit)
            for backend, label in zip(backends, labels(backends), strict=True)
        ]
        place = {"name": name, "pid": self._pid, "host": socket.gethostname()}
        queue.put(Event(time.time(), "open", place | identity._asdict() | facts))
        if resumes and start_step is not None:
            queue.put(Event(time.time(), "resume", {"start_step": start_step}))
        self._close_at_exit()
        try:
            self._start(open_timeout)
        except BaseException:
            # Ctrl-C, for instance. Whoever waits for the run never gets it, and could not close it.
            self.close("failed", timeout=_CLOSE_UNBORN)
            raise

    def _start(self, open_timeout: float) -> None:
        self._writer.start()
        if self._post is not None:
            self._post.start()
        for pump in self._pumps:
            pump.start()
        deadline = time.monotonic() + open_timeout
        for pump in self._pumps:
            if not pump.opened.wait(max(deadline - time.monotonic(), 0.0)):
                self.failures.record(
                    pump.label,
                    f"is not open after {open_timeout:g} s; training goes on, and it gets its "
                    "rows once it is",
                )

    def unopened(self, backend: Any) -> str | None:
        """Why a backend is not open; `None` if it is."""
        (pump,) = (pump for pump in self._pumps if pump.feeds(backend))
        if pump.failed_to_open is not None:
            return f"{pump.label}: {pump.failed_to_open!r}"
        return None if pump.opened.is_set() else f"{pump.label}: {pump.stuck()}"

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

    def put(self, event: Any) -> None:
        """Queue an event."""
        self._queue.put(event)

    def sync_soon(self) -> None:
        """Have every row so far put on the disk. Fit for a signal handler: takes no lock."""
        self._queue.put(Token(sync=True, at_once=True))

    def flush(self, timeout: float) -> None:
        """Wait until every row and clip so far is in the journal and with every backend.

        Raises:
            TimeoutError: something was not done in time; the message says what.
        """
        if self.closed or os.getpid() != self._pid:
            return
        deadline = time.monotonic() + timeout
        missing = self._settle(timeout)
        token = self._writer.flush()
        if token.reached.wait(max(deadline - time.monotonic(), 0.0)) and self.clips.opened:
            clips = self.clips.wait(max(deadline - time.monotonic(), 0.0))
            missing = missing or (f"{clips} clip(s) are not rendered" if clips else None)
            token = self._writer.flush()
        if not token.reached.wait(max(deadline - time.monotonic(), 0.0)):
            missing = missing or f"the journal {self._journal.path} has not taken all rows"
        for pump in self._pumps:
            while not missing and pump.delivered < token.end and not pump.ended.is_set():
                if time.monotonic() > deadline:
                    missing = f"{pump.label}: {pump.stuck()}"
                pump.ended.wait(0.002)
        if missing:
            raise TimeoutError(f"`flush` gave up after {timeout:g} s: {missing}")

    def start_step(self, timeout: float) -> int | None:
        """The step after that of the last row, once all rows so far are on the disk.

        Args:
            timeout: how long to wait for rows that are under way, in seconds.

        Returns:
            The step; `None` if it is not known.
        """
        deadline = time.monotonic() + timeout
        missing = None if self.closed else self._settle(timeout)
        token = self._stop or self._writer.flush(sync=True)
        if not missing and token.reached.wait(max(deadline - time.monotonic(), 0.0)):
            return token.start_step
        missing = missing or f"the journal {self._journal.path} has not taken all rows"
        self.failures.record(
            "state", f"cannot tell which row is the last after {timeout:g} s: {missing}"
        )
        return None

    def close(self, state: str, timeout: float) -> None:
        """Write everything that is left and close every backend.

        A second call does nothing, unless the first was interrupted: then it goes on from there.

        Args:
            state: how the run ended: `"finished"`, `"failed"` or `"preempted"`.
            timeout: how long to take at most, in seconds. What is late is reported.
        """
        if self._ended or os.getpid() != self._pid:
            return
        deadline = time.monotonic() + timeout
        if self._stop is None:
            missing = self._settle(timeout / 2)
            if missing:
                self.failures.record("close", missing)
            self.closed = True
            self.sink.close()
            self._finish_clips(state, (deadline - time.monotonic()) / 2)
            self._put_close(state)
            self._stop = self._writer.stop(patience=0.7 * timeout)
        written = self._stop.reached.wait(max(deadline - time.monotonic(), 0.0))
        if not written:
            self.failures.record("close", f"{self._journal.path} did not take all rows in time")
        if self._post is not None:
            self._post.stop()
        for pump in self._pumps:
            pump.close()
        for pump in self._pumps:
            if not pump.ended.wait(max(deadline - time.monotonic(), 0.0)):
                self.failures.record(pump.label, f"did not end in {timeout:g} s: {pump.stuck()}")
        # Only now: if this was interrupted, the next call or the interpreter's exit goes on.
        self._ended = True
        atexit.unregister(self._at_exit)
        if written:
            self._journal.close()

    def _finish_clips(self, state: str, timeout: float) -> None:
        """Let the clips that are there become records: the last record says how the run ended."""
        if not self.clips.opened:
            return
        # A job that is told to end has little time left, and rows and local files come first.
        limit = timeout if state == "finished" else min(timeout, _CLIPS_IN_A_HURRY)
        start = time.monotonic()
        token = Token(sync=True)
        self._queue.put(token)
        token.reached.wait(max(limit, 0.0))
        self.clips.close(max(start + limit - time.monotonic(), 0.0))

    def _lags(self) -> dict[str, float]:
        return {pump.label: pump.lag for pump in self._pumps}

    def _put_close(self, state: str) -> None:
        failures = [_told(failure) for failure in self.failures.all()]
        self._queue.put(Event(time.time(), "close", {"state": state, "failures": failures}))

    def _close_at_exit(self) -> None:
        """Close when the interpreter exits, if nobody has by then.

        Exit handlers run in reverse order. So this is registered again after each backend that
        opens, to run before what that backend has registered: it still works then.
        """
        with self._lock:
            atexit.unregister(self._at_exit)
            if not self.closed:
                atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        # The interpreter sets this when the program ends by an exception that nobody caught.
        failed = getattr(sys, "last_value", None) is not None
        self.close("failed" if failed else "finished", timeout=60.0)


def _told(failure: Failure) -> str:
    return f"{failure.where}: {failure.message}"
