"""Signals before the end of a job: recorded and passed on, nothing else."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, final

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Flag of a handler that takes more than the number of the signal.
_SA_SIGINFO = 4


def check_main_thread() -> None:
    """Check that this thread may handle signals: only the main one may."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "`handle_signals` is True, but signals can be handled by the main thread only, and "
            f"this is {threading.current_thread().name!r}. Make the logger in the main thread."
        )


@final
class _Sigaction(ctypes.Structure):
    """`struct sigaction` of Linux."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def _action(number: int) -> _Sigaction:
    """What handles a signal, whether Python knows of it or not."""
    action = _Sigaction()
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaction(number, None, ctypes.byref(action))
    return action


@final
class _NativeHandler:
    """A handler that Python does not know of, as the one by which JAX gets its notice of preemption
    (`reached_preemption_sync_point`). Called and restored as if it were Python's."""

    def __init__(self, action: _Sigaction) -> None:
        self._action = action
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_int)(action.handler)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._call(number)

    def restore(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).sigaction(number, ctypes.byref(self._action), None)


@final
class SignalWatch:
    """Handles SIGTERM and SIGUSR1; handlers that were installed before still run.

    While it is installed, these signals do not end the process: the program polls `seen` at a step
    boundary and exits by itself.

    Attributes:
        seen: whether there was a signal, here or in a watch that was installed before.
        last: when one was last seen in this process, by `time.monotonic()`.
    """

    last: ClassVar[float] = float("-inf")

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
            native = _action(number)
            self._before[number] = before = signal.signal(number, self._handle)
            owner = getattr(before, "__self__", None)
            self.seen |= isinstance(owner, SignalWatch) and owner.seen and not owner._removed
            # One of Python's own has the address that this one has now.
            known = (None, signal.SIG_IGN, _action(number).handler)
            if native.handler not in known and not native.flags & _SA_SIGINFO:
                self._before[number] = _NativeHandler(native)

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
                if isinstance(before, _NativeHandler):
                    before.restore(number)
                else:
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
            SignalWatch.last = time.monotonic()
            self._on_signal()
        before = self._below(number)
        is_native = before is None or isinstance(before, _NativeHandler)
        if callable(before) and not (is_native and forked):
            before(number, frame)
        elif before == signal.SIG_DFL and not watches or is_native and forked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
