"""Runs the doctor: all processes join and collect, process 0 judges and prints."""

import os
import sys
from typing import Literal, NoReturn

from lerax_dist.cli.doctor import CHECKS
from lerax_dist.cli.doctor._check import Context
from lerax_dist.cli.doctor._join import join
from lerax_dist.cli.doctor._report import Report, as_json_value, stdout_for_report
from lerax_dist.cluster import Launch, detect


def run_doctor(log_dir: str, timeout: float, *, as_json: bool) -> int:
    """Check whether a run would log correctly.

    Args:
        log_dir: folder of the runs.
        timeout: longest wait for other processes at each stage, in seconds.
        as_json: whether process 0 prints JSON.

    Returns:
        Exit status, the same on every process: 0 if a run would, else 1.
    """
    # Beside a training that runs the doctor must not take most of a GPU's memory, as JAX does.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with stdout_for_report():
        launch = None
        try:
            launch = detect(os.environ)
            message = _timeout_message(launch, timeout, as_json)
            joined = join(launch, os.environ, timeout, message)
        except (ValueError, RuntimeError, TimeoutError, OSError) as error:
            if launch is None or launch.process_index in (0, None):
                Report(timeout, trouble=str(error)).print(as_json=as_json)
            else:
                _print_error(launch, str(error))
            _exit(1)
        return _examine(Context(launch, joined, log_dir, timeout), as_json)


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


def _timeout_message(
    launch: Launch, timeout: float, as_json: bool
) -> tuple[Literal["stdout", "stderr"], str]:
    """Where and what this process prints if joining does not even return at the timeout."""
    error = (
        f"{_name(launch)} ({launch.launcher}) timed out after {timeout:g} s while it waited for "
        "the others to join. Each process that waits prints this; those that print nothing are "
        "missing. Check that they were started and do not hang before they join."
    )
    if launch.process_index in (0, None):
        return "stdout", Report(timeout, trouble=error).text(as_json=as_json)
    return "stderr", f"lerax-dist doctor: {error}"


def _print_error(launch: Launch, error: str) -> None:
    print(f"lerax-dist doctor: {_name(launch)}: {error}", file=sys.stderr, flush=True)


def _name(launch: Launch) -> str:
    return f"process {launch.process_index} of {launch.process_count}"


def _exit(status: int) -> NoReturn:
    """End the process at once: exit handlers of MPI and JAX wait for processes that are missing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
