"""A place in a queue that somebody waits for."""

import threading
from typing import final


@final
class Token:
    """A place in the queue: `reached` is set once all before it is where it belongs.

    Attributes:
        last: whether the thread that empties the queue ends here.
        sync: whether the journal is put on the disk here.
        at_once: whether it is reached before the rows that wait for other processes.
        state: how the run ended, if this is the last.
        deadline: when rows have waited for other processes for long enough, by `time.monotonic`.
        reached: set when it is.
        end: number of the record after the last one before it.
        start_step: the step after that of the last row before it; `None` if there is none yet.
    """

    def __init__(
        self,
        *,
        last: bool = False,
        sync: bool = False,
        at_once: bool = False,
        state: str = "finished",
        deadline: float | None = None,
    ) -> None:
        self.last = last
        self.sync = sync
        self.at_once = at_once
        self.state = state
        self.deadline = deadline
        self.reached = threading.Event()
        self.end = 0
        self.start_step: int | None = None
