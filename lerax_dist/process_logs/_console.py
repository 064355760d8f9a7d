"""What of logging reaches the console: process 0's, through Rich where somebody looks."""

import logging
import os
import sys
from typing import Any, final

from lerax_dist.cluster import process_place


def console_handler() -> logging.Handler:
    """A handler for the console of this process; it is silent on all but process 0."""
    handler = _rich_handler() if _is_terminal() else _plain_handler()
    handler.addFilter(FirstProcess())
    return handler


@final
class FirstProcess(logging.Filter):
    """Lets records through on process 0 and where nothing says which process this is."""

    def filter(self, record: logging.LogRecord) -> bool:
        # Asked each time: on some launchers it is known only once the processes have joined.
        return not process_place()[0]


def _rich_handler() -> logging.Handler:
    from rich import get_console
    from rich.logging import RichHandler

    # Rich's own console, on which `ConsoleBackend` draws: what comes while it does appears above.
    return RichHandler(
        console=get_console(), show_path=False, rich_tracebacks=True, log_time_format="[%X]"
    )


def _plain_handler() -> logging.Handler:
    handler: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    return handler


def _is_terminal() -> bool:
    """Whether somebody looks; Open MPI's pseudo-terminals, which have no size, are none."""
    if "NO_COLOR" in os.environ or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False
