"""A start that is the same for all processes, where they have not joined each other yet."""

import time
from pathlib import Path


def meet(index: int, count: int, limit: float = 60.0) -> None:
    """In a worker: wait until all are here, as a short time limit of one counts from its own start.

    Args:
        index: index of this process.
        count: number of processes, all in one working directory of the test's own.
        limit: longest wait in seconds.
    """
    Path(f"here{index}").touch()
    deadline = time.monotonic() + limit
    while missing := [n for n in range(count) if not Path(f"here{n}").exists()]:
        assert time.monotonic() < deadline, f"processes {missing} did not start in {limit:g} s"
        time.sleep(0.02)
