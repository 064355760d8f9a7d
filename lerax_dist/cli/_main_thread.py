"""Work for the main thread, asked for by another one that does not wait for ever."""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, final


@final
class MainThread:
    """The main thread as a worker: devices are used by it alone.

    Attributes:
        stuck: whether something that was asked for had not ended in time; nothing more is done.
    """

    def __init__(self) -> None:
        self.stuck = False
        self._jobs: queue.SimpleQueue[tuple[Future, Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()

    def serve(self) -> None:
        """On the main thread: do what is asked for until `end`."""
        while (job := self._jobs.get()) is not None:
            future, work = job
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    def ask(self, work: Callable[[], Any], timeout: float) -> Any:
        """From another thread: have work done, and give its result or raise what it raised.

        Args:
            work: what to do.
            timeout: longest wait in seconds.

        Raises:
            TimeoutError: it had not ended in time, or something before it had not.
        """
        if self.stuck:
            raise TimeoutError("the main thread is still at what it was asked for before")
        future: Future[Any] = Future()
        self._jobs.put((future, work))
        try:
            return future.result(timeout)
        except TimeoutError:
            self.stuck = not future.done()
            raise

    def end(self) -> None:
        """From another thread: let `serve` return."""
        self._jobs.put(None)
