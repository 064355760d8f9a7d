"""`lerax-dist doctor`: every process joins, process 0 gathers, judges and prints."""

import dataclasses
import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, final

from lerax_dist._version import __version__
from lerax_dist.cli._clock import compare_clocks
from lerax_dist.cli._devices import start_devices, sum_over_devices
from lerax_dist.cli._facts import Clock, Collective, Devices, Facts, Folder, Process
from lerax_dist.cli._folder import look_for, token_in
from lerax_dist.cli._join import Joined, join
from lerax_dist.cli._judge import is_ok, judge
from lerax_dist.cli._main_thread import MainThread
from lerax_dist.cli._print import print_report, report_text
from lerax_dist.cli._stdout import kept_for_report
from lerax_dist.cli._trackers import try_trackers
from lerax_dist.cluster import Launch, ProcessGroup, detect

_CLOCK_ROUNDS = 10
_SERVER_LIMIT = 5.0
# How much longer the others wait for process 0 where it waits for all of them.
_GRACE = 15.0


def doctor(log_dir: str, timeout: float, *, as_json: bool) -> int:
    """Say whether a run would log correctly.

    Args:
        log_dir: folder of the runs.
        timeout: longest wait for other processes at each stage, in seconds.
        as_json: whether process 0 prints JSON.

    Returns:
        Exit status, the same on every process: 0 if a run would, else 1.
    """
    with kept_for_report():
        return _doctor(log_dir, timeout, as_json)


def _doctor(log_dir: str, timeout: float, as_json: bool) -> int:
    try:
        launch = detect(os.environ)
        words = _last_words(launch, timeout, as_json)
        joined = join(launch, os.environ, timeout, words)
    except (ValueError, RuntimeError, TimeoutError, OSError) as error:
        place = _place_of_this_process()
        if place.process_index in (0, None):
            print_report(Facts(timeout, trouble=str(error)), as_json=as_json)
        else:
            _complain(place, str(error))
        # MPI and JAX would wait at the exit for those that did not come.
        return _leave(1)
    main = MainThread()
    examination = Examination(launch, joined, main, log_dir, timeout)
    thread = threading.Thread(
        target=examination.run, args=(as_json,), name="lerax_dist-doctor", daemon=True
    )
    thread.start()
    main.serve()
    thread.join()
    return examination.status


@final
class Examination:
    """All that the processes do together once they have joined.

    It runs in a thread of its own. The main thread does the work on devices, which may hang, and
    the thread can say so.

    Attributes:
        status: exit status, once `run` has returned.
    """

    def __init__(
        self, launch: Launch, joined: Joined, main: MainThread, log_dir: str, timeout: float
    ) -> None:
        self.status = 1
        self._launch = launch
        self._joined = joined
        self._group: ProcessGroup = joined.group
        self._main = main
        self._log_dir = log_dir
        self._timeout = timeout
        self._known: dict[str, Any] = {}

    def run(self, as_json: bool) -> None:
        """Examine, print on process 0, agree on the exit status."""
        try:
            self._examine()
            verdict = None
            if self._group.is_writer:
                facts = Facts(self._timeout, **self._known)
                print_report(facts, as_json=as_json)
                verdict = {"ok": is_ok(judge(facts)), "stuck": _anybody_late(facts)}
            verdict = self._group.broadcast(
                verdict, timeout=self._timeout + _GRACE, what="the doctor's verdict"
            )
        except Exception as error:
            if self._group.is_writer:
                facts = Facts(self._timeout, **self._known, trouble=str(error) or repr(error))
                print_report(facts, as_json=as_json)
            else:
                _complain(self._launch, str(error) or repr(error))
            _leave(1)
            raise AssertionError from error
        self.status = 0 if verdict["ok"] else 1
        if verdict["stuck"]:
            self._leave_together()
        self._main.end()

    def _leave_together(self) -> None:
        """Leave without JAX's shutdown, which would wait for who is stuck."""
        try:
            # Process 0 takes the coordination service with it, so the others get a head start.
            self._group.gather(None, timeout=2.0, what="the doctor's goodbyes")
        finally:
            _leave(self.status)

    def _examine(self) -> None:
        self._keep("processes", Process, self._this_process(), "who is here")
        self._compare_clocks()
        self._look_for_folder()
        devices = self._on_devices(start_devices, Devices, "the devices")
        all_start = self._keep("devices", Devices, devices, "the devices")
        # All or nobody: a collective that one process stays away from is a deadlock.
        all_start = self._group.broadcast(
            None if all_start is None else not any(one.error or one.late for one in all_start),
            timeout=self._timeout + _GRACE,
            what="whether all have devices",
        )
        if all_start:
            collective = self._on_devices(sum_over_devices, Collective, "a collective")
            self._keep("collectives", Collective, collective, "a collective")
        if self._group.is_writer:
            self._known["trackers"] = try_trackers(_SERVER_LIMIT)

    def _keep(self, name: str, kind: type, value: Any, what: str) -> list[Any] | None:
        """Bring what each process has found to process 0, and remember it there."""
        values = self._group.gather(
            dataclasses.asdict(value), timeout=self._timeout + _GRACE, what=what
        )
        if values is None:
            return None
        self._known[name] = [kind(**fields) for fields in values]
        return self._known[name]

    def _on_devices(self, work: Callable[[], Any], kind: type, what: str) -> Any:
        try:
            return self._main.ask(work, self._timeout)
        except TimeoutError:
            return kind(late=True)
        except Exception as error:
            return kind(error=" ".join(str(error).split())[:500] or repr(error))

    def _this_process(self) -> Process:
        return Process(
            self._group.process_index,
            self._group.hostname,
            os.getpid(),
            _versions(),
            self._launch.launcher,
            self._launch.evidence,
            self._launch.process_index,
            self._launch.process_count,
            self._joined.coordinator,
            self._joined.notes,
        )

    def _compare_clocks(self) -> None:
        rounds: list[list[tuple[float, float, float]]] = []
        for _ in range(_CLOCK_ROUNDS):
            sent = time.time()
            self._group.broadcast(None, timeout=self._timeout, what="the time, please")
            times = self._group.gather(time.time(), timeout=self._timeout, what="the time")
            if times is not None:
                back = time.time()
                rounds.append([(sent, there, back) for there in times])
        if rounds:
            others = [compare_clocks(each) for each in zip(*rounds, strict=True)][1:]
            self._known["clocks"] = [Clock(0.0, 0.0), *others]

    def _look_for_folder(self) -> None:
        if not self._group.is_writer:
            name = self._group.broadcast(None, timeout=self._timeout, what="the token")
            self._keep("folders", Folder, look_for(name, self._log_dir), "the log folder")
            return
        with token_in(self._log_dir) as (disk, name):
            self._known["disk"] = disk
            left = name if disk.writable else None
            self._group.broadcast(left, timeout=self._timeout, what="the token")
            here = Folder(disk.path, disk.writable, disk.error)
            self._keep("folders", Folder, here, "the log folder")


def _anybody_late(facts: Facts) -> bool:
    return any(one.late for one in (*facts.devices, *facts.collectives))


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "equinox", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"lerax_dist": __version__}


def _last_words(launch: Launch, timeout: float, as_json: bool) -> tuple[str, str]:
    """What is printed for this process if it never comes back from joining, and where."""
    who = f"process {launch.process_index} of {launch.process_count} ({launch.launcher})"
    error = (
        f"{who} has waited {timeout:g} s for the others to join. Each process that waits says so; "
        "those that say nothing are missing: were they started, do they hang before they join?"
    )
    if launch.process_index in (0, None):
        return "out", report_text(Facts(timeout, trouble=error), as_json=as_json)
    return "err", f"lerax-dist doctor: {error}"


def _place_of_this_process() -> Launch:
    try:
        return detect(os.environ)
    except ValueError as error:
        return Launch("unknown", None, None, None, None, None, str(error))


def _complain(launch: Launch, error: str) -> None:
    who = f"process {launch.process_index} of {launch.process_count}"
    print(f"lerax-dist doctor: {who}: {error}", file=sys.stderr, flush=True)


def _leave(status: int) -> int:
    """End the process at once, without the exit handlers of MPI and JAX."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
