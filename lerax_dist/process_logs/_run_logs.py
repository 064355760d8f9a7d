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

# Seconds between two times that a process stores its counts, or that process 0 reads them.
_STORE_INTERVAL = 2.0
_READ_INTERVAL = 10.0
# Seconds for the last time, at the end; a call to the coordination service may hang.
_CLOSE_TIMEOUT = 2.0
# Processes that one summary names.
_MAX_NAMED = 4

_log = logging.getLogger("lerax_dist")


@final
class RunLogs:
    """The log of this process in a file of the run, and others' warnings reported on process 0.

    No process waits for another: each one stores its counts in JAX's coordination service under its
    own key, where process 0 reads them. That needs neither a shared folder nor a collective.
    A group without that service (`MPIGroup`) has the files only.
    """

    def __init__(self, run_dir: Path, run_id: str, group: ProcessGroup) -> None:
        self._folder = run_dir / "logs"
        self._path = self._folder / f"process_{group.process_index:04}.log"
        self._hostname = group.hostname
        self._pid = os.getpid()
        self._closed = False
        self._ending = threading.Event()
        self._reported: dict[int, tuple[str, Counts]] = {}
        self._stored = Counts()
        self._thread: threading.Thread | None = None
        several = group.process_count > 1
        keys = group.key_per_process(f"logs/{run_id}") if several else None
        process_log.attach(self._path)
        if keys is not None and process_log in logging.getLogger().handlers:
            reads = group.process_index == 0
            task, interval = (
                (self._read, _READ_INTERVAL) if reads else (self._store, _STORE_INTERVAL)
            )
            args = (task, keys, interval)
            name = "lerax_dist-logs"
            self._thread = threading.Thread(target=self._repeat, args=args, name=name, daemon=True)
            self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Store or report what is left, and close the file. A second call does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT)
        process_log.detach(self._path)

    def _repeat(
        self, task: Callable[[KeyPerProcess], None], keys: KeyPerProcess, interval: float
    ) -> None:
        """Run a task at intervals, and once more at the end."""
        while not self._ending.wait(interval):
            task(keys)
        task(keys)

    def _store(self, keys: KeyPerProcess) -> None:
        counts = process_log.counts
        if counts == self._stored:
            return
        try:
            keys.set(encode_counts(self._hostname, counts))
            self._stored = counts
        except Exception:
            # The service is gone, and process 0 with it; the log file has the records.
            self._ending.set()

    def _read(self, keys: KeyPerProcess) -> None:
        try:
            now = {index: decode_counts(text) for index, text in keys.read_all().items()}
        except Exception:
            # The service is gone, or no process has stored any yet.
            return
        text = summarize(self._reported, now)
        self._reported = now
        if text is not None:
            _log.warning("%s (more in %s)", text, self._folder)


def encode_counts(host: str, counts: Counts) -> str:
    """The text that a process stores."""
    return json.dumps({"host": host, **counts._asdict()})


def decode_counts(text: str) -> tuple[str, Counts]:
    """Host and counts from the text that a process has stored."""
    fields = json.loads(text)
    return fields.pop("host"), Counts(**fields)


def summarize(
    before: Mapping[int, tuple[str, Counts]], now: Mapping[int, tuple[str, Counts]]
) -> str | None:
    """One line about the new warnings and errors, given host and counts by process index.

    E.g. `3 warnings on process 7 (n3). Process 7: WARNING data: ...`, with the newest text of the
    first process that has a new error, else of the first that has a new warning; `None` if there
    are none.
    """
    parts: list[str] = []
    newest: list[tuple[bool, int, str]] = []
    for process, (host, counts) in sorted(now.items()):
        _, old = before.get(process, (host, Counts()))
        warnings, errors = counts.warnings - old.warnings, counts.errors - old.errors
        if warnings or errors:
            parts.append(f"{_numbers(warnings, errors)} on process {process} ({host})")
            newest.append((not errors, process, counts.newest))
    if not parts:
        return None
    _, first, text = min(newest)
    more = len(parts) - _MAX_NAMED
    suffix = f"; and on {more} more processes" if more > 0 else ""
    return f"{'; '.join(parts[:_MAX_NAMED])}{suffix}. Process {first}: {text}"


def _numbers(warnings: int, errors: int) -> str:
    words = [
        f"{number} {word}{'s' if number != 1 else ''}"
        for number, word in ((errors, "error"), (warnings, "warning"))
        if number
    ]
    return " and ".join(words)
