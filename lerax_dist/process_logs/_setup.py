"""`get_logger` and `setup_logging`."""

import logging

from lerax_dist.process_logs._console import console_handler
from lerax_dist.process_logs._process_log import process_log

_CONSOLE = "lerax_dist console"


def get_logger(name: str, level: int = logging.INFO) -> logging.Logger:
    """A logger of the standard library, heard on process 0 and kept on every process.

    Unless the program has set logging up itself, the first call does what `setup_logging` does.

    Args:
        name: its name, usually `__name__`.
        level: lowest level that it lets through, unless it has one already.

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
    """Send what is logged to one console and to a file of each process.

    Process 0 shows records on its console: through Rich in a terminal, above the live display of
    `ConsoleBackend`, else as plain lines on the error output. Every process writes to
    `<run>/logs/process_0007.log` while a run is open; what comes before is kept (2,200 lines) and
    written then. Warnings and errors of other processes are told on process 0 with their number and
    host, every 10 seconds at most, where JAX has joined the processes and this was called before
    the run was opened; nobody waits for it. Handlers that are there already stay. A second call
    changes what its arguments say, and nothing twice.

    Args:
        console: whether process 0 shows records.
        capture_warnings: whether what Python warns of is logged, too, by the logger "py.warnings".

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
        shown = console_handler()
        shown.name = _CONSOLE
        root.addHandler(shown)
    own = logging.getLogger("lerax_dist")
    if own.level == logging.NOTSET:
        own.setLevel(logging.INFO)
    logging.captureWarnings(capture_warnings)
