"""Calls that may hang, made in a thread that is there before they are needed."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar, final

_T = TypeVar("_T")


@final
class TimedCaller:
    """Makes calls that may hang, one after the other, in one thread.

    Python 3.12.0 to 3.12.2 start no thread while the interpreter shuts down: what is called then
    needs one that runs already. While a call hangs the next ones wait for it: one thread hangs, and
    not many.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._starting = threading.Lock()
        # The process whose thread it is: a fork has none.
        self._pid = 0

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._starting:
            if self._pid != os.getpid():
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._pid = os.getpid()

    def call(self, function: Callable[[], _T], timeout: float) -> _T:
        """What `function` returns or raises.

        Raises:
            TimeoutError: if it did not return within `timeout` seconds.
        """
        self.start()
        answer: Future[_T] = Future()
        self._calls.put((function, answer))
        try:
            return answer.result(timeout)
        finally:
            # One that has not begun is not made.
            answer.cancel()

    def _run(self) -> None:
        while True:
            function, answer = self._calls.get()
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(function())
                except BaseException as error:
                    answer.set_exception(error)
            # What it holds may be large, or keep a run.
            del function, answer
