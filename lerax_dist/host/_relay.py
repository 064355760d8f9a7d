"""A run on a process that does not write it but has a share in it: `scope="process"`."""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._assemble import PATIENCE, Assembler, Share, together
from lerax_dist.host._parcel import Packer
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._sink import HostRow, Sink, Start
from lerax_dist.host._token import Token

# How long a message waits for process 0, which is behind, until that is told.
_SEND_PATIENCE = 60.0
# How long the thread may take for what is left once the time to close is over.
_HURRY = 2.0
# A process that does not write is left alone by its logger, but for once a second.
_PAUSE = 1.0


@final
class RelayRun:
    """Sends this process's rows to process 0, from a thread of its own."""

    def __init__(
        self,
        name: str,
        directory: Path,
        mailbox: Any,
        failures: Failures,
        settle: Callable[[float], str | None],
    ) -> None:
        """
        Args:
            name: name of the run.
            directory: its folder, which this process does not touch.
            mailbox: the way to process 0.
            failures: where to keep what goes wrong.
            settle: see `Run`.
        """
        self.name = name
        self.directory = directory
        self.failures = failures
        self.closed = False
        self._ended = False
        self._stop: Token | None = None
        self._hurries = threading.Event()
        self._pid = os.getpid()
        self._mailbox = mailbox
        self._settle = settle
        self._queue = RowQueue(failures, pause=_PAUSE)
        self.sink = Sink(self._queue, failures)
        self._assembler = Assembler(failures)
        self._packer = Packer()
        atexit.register(self._at_exit)
        self._thread = threading.Thread(target=self._run, name="lerax_dist-relay", daemon=True)
        self._thread.start()

    def log(self, row: HostRow, size: int, begin: float) -> None:
        """Queue a row from a plain loop; see `Run.log`."""
        self._queue.put_row(row, size, begin)

    def put(self, event: Any) -> None:
        """Process 0 writes the event."""

    def sync_soon(self) -> None:
        """Nothing is written here."""

    def start_step(self, timeout: float) -> None:
        """Process 0 knows."""

    def flush(self, timeout: float) -> None:
        """Wait until every row so far is on its way to process 0.

        Raises:
            TimeoutError: it was not in time.
        """
        if self.closed or os.getpid() != self._pid:
            return
        missing = self._settle(timeout)
        token = Token()
        self._queue.put(token)
        if not token.reached.wait(timeout):
            missing = missing or "process 0 does not take the rows of this process"
        if missing:
            raise TimeoutError(f"`flush` gave up after {timeout:g} s: {missing}")

    def close(self, state: str, timeout: float) -> None:
        """Send what is left. A second call goes on where an interrupted one was."""
        if self._ended or os.getpid() != self._pid:
            return
        deadline = time.monotonic() + timeout
        if self._stop is None:
            missing = self._settle(timeout / 2)
            if missing:
                self.failures.record("close", missing)
            self.closed = True
            self.sink.close()
            self._stop = Token(last=True, state=state)
            self._queue.put(self._stop)
        if not self._stop.reached.wait(max(deadline - time.monotonic(), 0.0)):
            self.failures.record("close", "process 0 did not take all rows of this process in time")
            self._hurries.set()
        self._thread.join(max(deadline - time.monotonic(), _HURRY))
        self._ended = True
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        # The interpreter sets this when the program ends by an exception that nobody caught.
        failed = getattr(sys, "last_value", None) is not None
        self.close("failed" if failed else "finished", timeout=60.0)

    def _run(self) -> None:
        while True:
            shares: list[Share] = []
            tokens: list[Token] = []
            longest = PATIENCE if self._assembler.holds else None
            # Named nowhere: an array that is let go of while Python ends aborts the process.
            for item, size in together(self._queue.take(longest)):
                try:
                    shares += self._shares(item, size, tokens)
                except Exception as error:
                    self.failures.record("relay", f"a row could not be read ({error!r})", error)
                    self._queue.done(size)
            if self._assembler.overdue():
                shares += self._assembler.release()
            self._send(shares)
            for token in tokens:
                if token.last:
                    self._finish(token)
                token.reached.set()
            if any(token.last for token in tokens):
                return

    def _shares(self, item: Any, size: int, tokens: list[Token]) -> list[Share]:
        match item:
            case list():
                return self._assembler.packets(item)
            case HostRow():
                return [self._assembler.host_row(item, size)]
            case Start():
                return self._assembler.restart(item.stride)
            case Token():
                tokens.append(item)
                return self._assembler.release()
        return []

    def _send(self, shares: list[Share]) -> None:
        if not shares:
            return
        try:
            message = self._packer.pack(shares)
            self._wait_for_room()
            self._mailbox.send(message)
            self._packer.sent(message)
        except Exception as error:
            self.failures.record("relay", f"rows could not be sent ({error!r})", error)
        self._queue.done(sum(share.size for share in shares))

    def _wait_for_room(self) -> None:
        """Rows that process 0 cannot take yet wait here, and slow this process down as well."""
        since = time.monotonic()
        while not self._hurries.is_set() and not self._mailbox.has_room(timeout=_PAUSE):
            if time.monotonic() - since > _SEND_PATIENCE:
                self.failures.record("relay", "process 0 is behind with the rows of this process")

    def _finish(self, token: Token) -> None:
        try:
            self._mailbox.send({"end": token.state})
            self._mailbox.finish(timeout=_SEND_PATIENCE)
        except Exception as error:
            self.failures.record("relay", f"the end could not be told ({error!r})", error)
