"""Runs the doctor: all processes join and collect, process 0 judges and prints."""

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import NoReturn

from lerax_dist.cli.doctor import CHECKS
from lerax_dist.cli.doctor._check import Context
from lerax_dist.cli.doctor._report import Report, as_json_value, stdout_for_report
from lerax_dist.cluster import (
    LAUNCH_ID,
    Launch,
    ProcessGroup,
    detect,
    initialize,
    late_text,
    rendezvous_address,
    watchdog,
)

# Seconds after the timeout of `initialize` until the watchdog ends the process. JAX ends it 5 s
# after that timeout, by a SIGABRT without a message.
_GRACE = 3.0


def run_doctor(log_dir: str, timeout: float, *, as_json: bool) -> int:
    """Check whether a run would log correctly. Each stage waits at most `timeout` seconds.

    Returns the exit status, the same on every process: 0 if a run would, else 1.
    """
    # Beside a training that runs the doctor must not take most of a GPU's memory, as JAX does.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with stdout_for_report():
        launch = None
        try:
            launch = detect(os.environ)
            group, notes = join(launch, os.environ, timeout, as_json=as_json)
        except (ValueError, RuntimeError, TimeoutError, OSError) as error:
            if launch is None or launch.process_index in (0, None):
                Report(timeout, trouble=str(error)).print(as_json=as_json)
            else:
                _print_error(launch, str(error))
            _exit(1)
        return _examine(Context(launch, group, log_dir, timeout, notes), as_json)


def join(
    launch: Launch, environ: MutableMapping[str, str], timeout: float, *, as_json: bool
) -> tuple[ProcessGroup, list[str]]:
    """Join all processes of a launch, as a doctor. Returns their group and the warnings logged.

    Raises what `initialize` does. If neither MPI nor JAX returns, the process reports that and ends
    with status 1.
    """
    late = late_text(launch, timeout, "`initialize()`")
    reports = launch.process_index in (0, None)
    if reports:
        late = Report(timeout, trouble=late).text(as_json=as_json)
    # A training that is just starting at the same address must not take this for its process.
    environ[LAUNCH_ID] = f"{environ.get(LAUNCH_ID, '')} lerax-dist doctor".strip()
    # At a rendezvous process 0 may start to wait when the others have waited for a while.
    rounds = 1 if rendezvous_address(launch, environ) is None else 2
    limit = watchdog(rounds * timeout + _GRACE, late, stream="stdout" if reports else "stderr")
    with _captured_log() as records, limit:
        group = initialize(timeout=timeout)
    return group, [record.getMessage() for record in records]


@contextlib.contextmanager
def _captured_log() -> Iterator[list[logging.LogRecord]]:
    """The warnings that lerax_dist logs while the block runs; they are not printed."""
    log = logging.getLogger("lerax_dist")
    handler = logging.handlers.BufferingHandler(sys.maxsize)
    handler.setLevel(logging.WARNING)
    propagate = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


def _examine(context: Context, as_json: bool) -> int:
    """Collect, print on process 0, and return the exit status that all agree on."""
    report = Report(context.timeout)
    is_ok = None
    try:
        report.hosts = context.gather(context.group.hostname, "host names") or []
        for check in CHECKS:
            found = context.gather(as_json_value(check.collect(context)), check.key) or []
            report.facts[check.key] = [check.fact(**each) for each in found if each is not None]
        alive = context.all_agree(not context.devices_hang, "whether devices hang")
        if context.group.is_writer:
            report.print(as_json=as_json)
            is_ok = report.is_ok
        status = 0 if context.broadcast(is_ok, "whether there are problems") else 1
    except Exception as error:
        report.trouble = str(error) or repr(error)
        if context.group.is_writer:
            report.print(as_json=as_json)
        else:
            _print_error(context.launch, report.trouble)
        _exit(1)
    if not alive:
        # Without JAX's shutdown barrier, which would wait for the devices that hang.
        try:
            # Process 0 takes the coordinator with it, so the others get a head start.
            context.group.gather(None, timeout=2.0, what="the end of the doctor")
        finally:
            _exit(status)
    return status


def _print_error(launch: Launch, error: str) -> None:
    name = f"process {launch.process_index} of {launch.process_count}"
    print(f"lerax-dist doctor: {name}: {error}", file=sys.stderr, flush=True)


def _exit(status: int) -> NoReturn:
    """End the process at once: exit handlers of MPI and JAX wait for processes that are missing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
