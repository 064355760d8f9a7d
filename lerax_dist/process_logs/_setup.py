"""`get_logger` and `setup_logging`: which handlers the root logger gets."""

import logging
import os
import sys
from typing import TextIO

from lerax_dist.cluster import process_place
from lerax_dist.process_logs._process_log import process_log

_CONSOLE = "lerax_dist console"


def get_logger(name: str, level: int = logging.INFO) -> logging.Logger:
    """A logger of the standard library, shown on process 0 and written to a file on each process.

    Unless the program has configured logging itself, the first call also calls `setup_logging`.

    Args:
        name: its name, usually `__name__`.
        level: lowest level to log, unless the logger has a level already.

    Returns:
        `logging.getLogger(name)`.

    Example:
        ```python
        log = get_logger(__name__)
        log.info("once on the console, and in the file of every process")
        ```
    """
    if not logging.getLogger().handlers:
        setup_logging()
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(level)
    return logger


def setup_logging(*, console: bool = True, capture_warnings: bool = True) -> None:
    """Send log records to one console and to a file per process.

    Process 0 shows records on its console: through Rich in a terminal, above the live display of
    `ConsoleBackend`, else as plain lines on stderr. Every process writes to
    `<run>/logs/process_0007.log` while a run is open; earlier records are buffered (2,200 lines)
    and written then. Process 0 reports the warnings and errors of other processes, with their
    number and host, at most every 10 seconds. This needs JAX to have joined the processes, and this
    call before the run is opened; no process waits for another. Existing handlers stay. A second
    call only applies its arguments, and adds no handler twice.

    Args:
        console: whether process 0 shows records.
        capture_warnings: whether Python warnings are logged as well, by the logger "py.warnings".

    Example:
        ```python
        import logging

        setup_logging()
        logging.getLogger("my_program").warning("on the console of process 0, and in each file")
        ```
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if handler.name == _CONSOLE:
            root.removeHandler(handler)
    if process_log not in root.handlers:
        root.addHandler(process_log)
    if console:
        shown = _rich_handler() if _is_terminal() else _plain_handler()
        shown.addFilter(_is_shown)
        shown.name = _CONSOLE
        root.addHandler(shown)
    package = logging.getLogger("lerax_dist")
    if package.level == logging.NOTSET:
        package.setLevel(logging.INFO)
    logging.captureWarnings(capture_warnings)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether this is process 0, or its index is not known."""
    # For each record: some launchers give the index only once the processes have joined.
    return not process_place()[0]


def _rich_handler() -> logging.Handler:
    from rich import get_console
    from rich.logging import RichHandler

    # Rich's global console, which `ConsoleBackend` uses: records appear above its live display.
    return RichHandler(
        console=get_console(), show_path=False, rich_tracebacks=True, log_time_format="[%X]"
    )


def _plain_handler() -> logging.Handler:
    handler: logging.StreamHandler[TextIO] = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    return handler


def _is_terminal() -> bool:
    """Whether stdout is a terminal with a size; Open MPI's pseudo-terminals have none."""
    if "NO_COLOR" in os.environ or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False
