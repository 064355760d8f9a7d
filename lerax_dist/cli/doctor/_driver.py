"""Runs the doctor: all processes join and collect, process 0 judges and prints."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, final

from lerax_dist.cli.doctor._check import AbstractCheck
from lerax_dist.cli.doctor._checks import CHECKS
from lerax_dist.cli.doctor._context import Context
from lerax_dist.cli.doctor._join import join
from lerax_dist.cli.doctor._report import Report, encode, stdout_for_report
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
        return Examination(Context(launch, joined, log_dir, timeout)).run(as_json=as_json)


@final
class Examination:
    """All that the processes do together once they have joined.

    Args:
        context: what the checks work with.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hosts: list[str] = []
        self._facts: dict[str, Sequence[Any]] = {}

    def run(self, *, as_json: bool) -> int:
        """Collect, print on process 0, and give the exit status that all agree on."""
        context = self._context
        try:
            self._hosts = context.gather(context.group.hostname, "host names") or []
            for check in CHECKS:
                self._collect(check)
            alive = context.all_agree(not context.devices_hang, "whether devices hang")
            is_ok = self._print(as_json) if context.group.is_writer else None
            status = 0 if context.broadcast(is_ok, "whether there are problems") else 1
        except Exception as error:
            trouble = str(error) or repr(error)
            if context.group.is_writer:
                self._print(as_json, trouble)
            else:
                _print_error(context.launch, trouble)
            _exit(1)
        if not alive:
            self._exit_together(status)
        return status

    def _collect(self, check: AbstractCheck[Any]) -> None:
        facts = self._context.gather(encode(check.collect(self._context)), check.key)
        if facts is not None:
            self._facts[check.key] = [
                check.fact(**fields) for fields in facts if fields is not None
            ]

    def _print(self, as_json: bool, trouble: str = "") -> bool:
        report = Report(self._context.timeout, self._hosts, self._facts, trouble)
        report.print(as_json=as_json)
        return report.is_ok

    def _exit_together(self, status: int) -> NoReturn:
        """Exit without JAX's shutdown barrier, which would wait for the devices that hang."""
        try:
            # Process 0 takes the coordinator with it, so the others get a head start.
            self._context.group.gather(None, timeout=2.0, what="the end of the doctor")
        finally:
            _exit(status)


def _timeout_message(launch: Launch, timeout: float, as_json: bool) -> tuple[str, str]:
    """Where and what this process prints if joining does not even return at the timeout."""
    name = f"process {launch.process_index} of {launch.process_count} ({launch.launcher})"
    error = (
        f"{name} timed out after {timeout:g} s while it waited for the others to join. Each "
        "process that waits prints this; those that print nothing are missing. Check that they "
        "were started and do not hang before they join."
    )
    if launch.process_index in (0, None):
        return "out", Report(timeout, trouble=error).text(as_json=as_json)
    return "err", f"lerax-dist doctor: {error}"


def _print_error(launch: Launch, error: str) -> None:
    name = f"process {launch.process_index} of {launch.process_count}"
    print(f"lerax-dist doctor: {name}: {error}", file=sys.stderr, flush=True)


def _exit(status: int) -> NoReturn:
    """End the process at once: exit handlers of MPI and JAX wait for processes that are missing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
