"""Signals before the end of a job: recorded and passed on, nothing else."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, final

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def check_main_thread() -> None:
    """Check that this thread may handle signals: only the main one may."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "`handle_signals` is True, but signals can be handled by the main thread only, and "
            f"this is {threading.current_thread().name!r}. Make the logger in the main thread."
        )


@final
class SignalWatch:
    """Handles SIGTERM and SIGUSR1; handlers that were installed before still run.

    While it is installed, these signals do not end the process: the program polls `seen` at a step
    boundary and exits by itself.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        # It is called in the handler: it must take no lock and not wait.
        self.seen = False
        self._on_signal = on_signal
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        self._removed = False

    def install(self) -> None:
        """Install the handler. On the main thread only, see `check_main_thread`."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def remove(self) -> None:
        """Restore the handlers of before.

        Where that is impossible (on another thread, or below a handler that was installed later),
        this one passes every signal on to the handler of before, or to the default action.
        """
        self._removed = True
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._before:
            before = self._below(number)
            # None: a handler not installed by Python, which cannot be restored.
            if signal.getsignal(number) == self._handle and before is not None:
                signal.signal(number, before)

    def _below(self, number: int) -> Any:
        """The handler of before, past watches that are removed by now."""
        before = self._before.get(number)
        owner = getattr(before, "__self__", None)
        if isinstance(owner, SignalWatch) and owner._removed:
            return owner._below(number)
        return before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A forked process, e.g. a data loader, must end by the signal.
        forked = os.getpid() != self._pid
        watches = not forked and not self._removed
        if watches:
            self.seen = True
            self._on_signal()
        before = self._below(number)
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL and not watches or before is None and forked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
