"""The waits of a close, which say for what they wait when that takes long."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import final

# When a close first says what it waits for, and then how often, in seconds.
_FIRST = 5.0
_INTERVAL = 15.0


@final
class ClosingWait:
    """Waits while a run closes, and says on standard error for what.

    Attributes:
        timeout: how long closing may take in all, in seconds.
    """

    def __init__(self, run_name: str, timeout: float) -> None:
        self.timeout = timeout
        self._run_name = run_name
        self._began = time.monotonic()
        self._say_at = self._began + _FIRST

    def wait(self, wait: Callable[[float], bool], deadline: float, what: Callable[[], str]) -> bool:
        """Wait by `wait(seconds)` until that is true; whether it was by `deadline`."""
        while True:
            now = time.monotonic()
            if wait(max(min(deadline, self._say_at) - now, 0.0)):
                return True
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= self._say_at:
                self._say_at = now + _INTERVAL
                self._say(what(), now)

    def call(self, wait: Callable[[float], str | None], timeout: float) -> str | None:
        """Wait by `wait(seconds)`, which returns at once or then, with what is missing."""
        deadline = time.monotonic() + timeout
        missing: str | None = None

        def is_over(seconds: float) -> bool:
            nonlocal missing
            end = time.monotonic() + seconds
            missing = wait(seconds)
            return missing is None or time.monotonic() < end

        in_time = self.wait(is_over, deadline, lambda: missing or "")
        return missing if in_time else f"{missing} after {timeout:g} s"

    def _say(self, what: str, now: float) -> None:
        with contextlib.suppress(Exception):
            sys.stderr.write(
                f"lerax_dist: the run {self._run_name!r} has been closing for "
                f"{now - self._began:.0f} s, of {self.timeout:g} s at most. Waiting for: {what}\n"
            )
            sys.stderr.flush()
