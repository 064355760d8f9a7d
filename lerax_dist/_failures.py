"""Failures of logging: recorded, shown once, raised only on request."""

import threading
import warnings
from dataclasses import dataclass
from typing import final


class LoggingWarning(UserWarning):
    """Something in logging failed; training continues.

    Each kind of failure warns once; all are in `logger.failures`.

    Example:
        ```python
        import warnings

        warnings.simplefilter("ignore", LoggingWarning)  # to look at `logger.failures` only
        ```
    """


@final
@dataclass(frozen=True)
class Failure:
    """Something that failed.

    Attributes:
        where: what failed, e.g. `"WandbBackend"`.
        message: what happened, and what became of the rows.
        error: the exception, if there was one.

    Example:
        ```python
        with Logger(JSONLBackend("logs")) as logger:
            logger.log({"loss": float("nan")}, step=0)
        for failure in logger.failures:
            print(failure.where, failure.message)  # metrics 'loss' is nan at step 0, ...
        ```
    """

    where: str
    message: str
    error: BaseException | None = None


@final
class Failures:
    """All failures of a run. Any thread may add to it."""

    def __init__(self) -> None:
        # Reentrant, since a signal handler that records may interrupt its own thread inside.
        self._lock = threading.RLock()
        self._recorded: dict[tuple[str, str], Failure] = {}

    def record(
        self,
        where: str,
        message: str,
        error: BaseException | None = None,
        *,
        kind: str | None = None,
    ) -> None:
        """Record a failure, and warn if it is the first of its kind there. Never raises.

        The kind is by default the type of the error, or the message if there is no error.
        """
        if kind is None:
            kind = message if error is None else type(error).__name__
        with self._lock:
            if (where, kind) in self._recorded:
                return
            self._recorded[where, kind] = Failure(where, message, error)
        try:
            # Explicitly: the line of this package that warns would tell the user nothing.
            # It names what users name: a control character must not reach their terminal.
            text = "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
            warnings.warn_explicit(f"{where}: {text}", LoggingWarning, "lerax_dist", 0)
        except Exception:
            # The user's warning filter turned it into an error; it is kept all the same.
            pass

    def all(self) -> tuple[Failure, ...]:
        """Every failure so far, one of each kind in each place, the oldest first."""
        with self._lock:
            return tuple(self._recorded.values())
