"""The logs of one run on one process, from its opening to its close."""

import atexit
import logging
import os
import threading
from pathlib import Path
from typing import Any, final

from lerax_dist.cluster import ProcessGroup
from lerax_dist.process_logs._notices import decode_notice, encode_notice, summarise
from lerax_dist.process_logs._process_log import Counts, process_log

# Between two posts of a process, and between two looks of process 0, in seconds.
_POST_INTERVAL = 2.0
_LOOK_INTERVAL = 10.0
# A call to the coordination service that hangs must not hold up the end of a program.
_CLOSE_PATIENCE = 2.0

_log = logging.getLogger("lerax_dist")


def open_logs(run_dir: Path, run_id: str, group: ProcessGroup) -> "RunLogs":
    """Let this process's log go to a file of the run, and its warnings to process 0.

    No process waits for another: a process leaves what it has to say in JAX's coordination
    service, under a key of its own, and process 0 looks there. That needs no folder that all hosts
    share and no collective. A group without that service (`MPIGroup`) has the files only.

    Args:
        run_dir: folder of the run.
        run_id: its id.
        group: the processes that log together.
    """
    several = group.process_count > 1
    board = group.key_per_process(f"logs/{run_id}") if several else None
    return RunLogs(run_dir / "logs", group.process_index, group.hostname, board)


@final
class RunLogs:
    """The logs of a run on one process.

    Args:
        folder: folder of the files.
        process_index: index of this process.
        hostname: its host.
        board: where processes leave a text each that all can read; None if there is none.
    """

    def __init__(self, folder: Path, process_index: int, hostname: str, board: Any) -> None:
        self._folder = folder
        self._path = folder / f"process_{process_index:04}.log"
        self._hostname = hostname
        self._board = board
        self._pid = os.getpid()
        self._closed = False
        self._ending = threading.Event()
        self._told: dict[int, tuple[str, Counts]] = {}
        self._posted = Counts()
        self._thread: threading.Thread | None = None
        process_log.attach(self._path)
        if board is not None and process_log in logging.getLogger().handlers:
            work = self._look_at_times if process_index == 0 else self._post_at_times
            self._thread = threading.Thread(target=work, name="lerax_dist-logs", daemon=True)
            self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Let go of the file; tell what is left. A second call does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_PATIENCE)
        process_log.detach(self._path)

    def _post_at_times(self) -> None:
        while not self._ending.wait(_POST_INTERVAL):
            self._post()
        self._post()

    def _post(self) -> None:
        counts = process_log.counts
        if counts == self._posted:
            return
        try:
            self._board.set(encode_notice(self._hostname, counts))
            self._posted = counts
        except Exception:
            # The service is gone, and so is process 0; the file has what was said.
            self._ending.set()

    def _look_at_times(self) -> None:
        while not self._ending.wait(_LOOK_INTERVAL):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            now = {index: decode_notice(text) for index, text in self._board.read_all().items()}
        except Exception:
            # Likewise, or nobody has posted anything.
            return
        text = summarise(self._told, now)
        self._told = now
        if text is not None:
            _log.warning("%s (more in %s)", text, self._folder)
