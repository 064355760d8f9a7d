"""The logs of one run on one process: its file, and a summary of other processes' warnings."""

import atexit
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from lerax_dist.cluster import KeyPerProcess, ProcessGroup
from lerax_dist.process_logs._process_log import Counts, process_log

# Between two posts of a process, and between two reads of process 0, in seconds.
_POST_INTERVAL = 2.0
_READ_INTERVAL = 10.0
# For the last post or read at the end; a call to the coordination service may hang.
_CLOSE_TIMEOUT = 2.0
# Processes that one summary names.
_MAX_NAMED = 4

_log = logging.getLogger("lerax_dist")


def open_logs(run_dir: Path, run_id: str, group: ProcessGroup) -> "RunLogs":
    """Write this process's log to a file of the run, and report its warnings on process 0.

    No process waits for another: each one posts its counts in JAX's coordination service under a
    key of its own, where process 0 reads them. That needs neither a shared folder nor a collective.
    A group without that service (`MPIGroup`) has the files only.

    Args:
        run_dir: folder of the run.
        run_id: id of the run.
        group: the processes that log together.
    """
    several = group.process_count > 1
    board = group.key_per_process(f"logs/{run_id}") if several else None
    return RunLogs(run_dir / "logs", group.process_index, group.hostname, board)


@final
class RunLogs:
    """The logs of a run on one process.

    Args:
        folder: folder of the log files.
        process_index: index of this process.
        hostname: its host.
        board: where processes post their counts; `None` if there is no such service.
    """

    def __init__(
        self, folder: Path, process_index: int, hostname: str, board: KeyPerProcess | None
    ) -> None:
        self._folder = folder
        self._path = folder / f"process_{process_index:04}.log"
        self._hostname = hostname
        self._pid = os.getpid()
        self._closed = False
        self._ending = threading.Event()
        self._reported: dict[int, tuple[str, Counts]] = {}
        self._posted = Counts()
        self._thread: threading.Thread | None = None
        process_log.attach(self._path)
        if board is not None and process_log in logging.getLogger().handlers:
            task, interval = (
                (self._read, _READ_INTERVAL) if process_index == 0 else (self._post, _POST_INTERVAL)
            )
            self._thread = threading.Thread(
                target=self._repeat,
                args=(task, board, interval),
                name="lerax_dist-logs",
                daemon=True,
            )
            self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Post or report what is left, and close the file. A second call does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT)
        process_log.detach(self._path)

    def _repeat(
        self, task: Callable[[KeyPerProcess], None], board: KeyPerProcess, interval: float
    ) -> None:
        """Run a task at intervals, and once more at the end."""
        while not self._ending.wait(interval):
            task(board)
        task(board)

    def _post(self, board: KeyPerProcess) -> None:
        counts = process_log.counts
        if counts == self._posted:
            return
        try:
            board.set(encode_counts(self._hostname, counts))
            self._posted = counts
        except Exception:
            # The service is gone, and process 0 with it; the log file has the records.
            self._ending.set()

    def _read(self, board: KeyPerProcess) -> None:
        try:
            now = {index: decode_counts(text) for index, text in board.read_all().items()}
        except Exception:
            # The service is gone, or no process has posted yet.
            return
        text = summarize(self._reported, now)
        self._reported = now
        if text is not None:
            _log.warning("%s (more in %s)", text, self._folder)


def encode_counts(host: str, counts: Counts) -> str:
    """The text that a process posts."""
    return json.dumps({"host": host, **counts._asdict()})


def decode_counts(text: str) -> tuple[str, Counts]:
    """Host and counts from the text that a process has posted."""
    fields = json.loads(text)
    return fields.pop("host"), Counts(**fields)


def summarize(
    before: Mapping[int, tuple[str, Counts]], now: Mapping[int, tuple[str, Counts]]
) -> str | None:
    """One line about the new warnings and errors of all processes.

    Args:
        before: host and counts by process index, at the last report.
        now: the same, now.

    Returns:
        E.g. `3 warnings on process 7 (n3). Process 7: WARNING data: ...`, with the newest text of
        the first process that has a new error, else of the first that has a new warning; `None` if
        there are none.
    """
    parts: list[str] = []
    newest: tuple[bool, int, str] | None = None
    for process, (host, counts) in sorted(now.items()):
        _, old = before.get(process, (host, Counts()))
        warnings, errors = counts.warnings - old.warnings, counts.errors - old.errors
        if not (warnings or errors):
            continue
        parts.append(f"{_numbers(warnings, errors)} on process {process} ({host})")
        if newest is None or (errors > 0) > newest[0]:
            newest = (errors > 0, process, counts.newest)
    if newest is None:
        return None
    more = len(parts) - _MAX_NAMED
    suffix = f"; and on {more} more processes" if more > 0 else ""
    return f"{'; '.join(parts[:_MAX_NAMED])}{suffix}. Process {newest[1]}: {newest[2]}"


def _numbers(warnings: int, errors: int) -> str:
    words = [
        f"{number} {word}{'s' if number != 1 else ''}"
        for number, word in ((errors, "error"), (warnings, "warning"))
        if number
    ]
    return " and ".join(words)
