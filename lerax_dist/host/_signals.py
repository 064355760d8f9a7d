"""Signals that say that the job is about to end: noticed, passed on, nothing else."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, final

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def check_main_thread() -> None:
    """Check that this thread may handle signals.

    Raises:
        RuntimeError: this is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "`handle_signals` is True, but signals can be handled by the main thread only, and "
            f"this is {threading.current_thread().name!r}. Make the logger in the main thread."
        )


@final
class SignalWatch:
    """Notices SIGTERM and SIGUSR1, and lets the handlers that were there before run as well.

    While it is installed the default action of these signals, which is to end the process at once,
    does not happen: the program is to look at `seen` at a step boundary and leave by itself.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        """
        Args:
            on_signal: called in the handler: it must take no lock and wait for nothing.
        """
        self.seen = False
        self._on_signal = on_signal
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        self._removed = False

    def install(self) -> None:
        """Take the signals over. For the main thread only, see `check_main_thread`."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def remove(self) -> None:
        """Give the signals back; see and hold up no more of them.

        Where they cannot be given back, in another thread or to a handler that someone has put over
        this one since, it passes on what comes to what was there before, be it the default action.
        """
        self._removed = True
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._before:
            before = self._below(number)
            # None: a handler that was not made by Python, which cannot be put back.
            if signal.getsignal(number) == self._handle and before is not None:
                signal.signal(number, before)

    def _below(self, number: int) -> Any:
        """What was there before, without the watches that are removed by now."""
        before = self._before.get(number)
        owner = getattr(before, "__self__", None)
        if isinstance(owner, SignalWatch) and owner._removed:
            return owner._below(number)
        return before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A forked process, one that loads data for instance, must end when it is told to.
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
