"""The end of a run on several processes: leaving together, and what each says of its end."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import final

from lerax_dist.cluster._group import name_processes
from lerax_dist.cluster._store import Store, joined_address
from lerax_dist.cluster.liveness._monitor import check_service

# How long the others may take, and how long the service at the end of a run, in seconds.
_TIMEOUT = 300.0
_CLOSE_TIMEOUT = 1.0
# Reads of the key-value store per second, all processes together, and how often one reads.
_MAX_READS = 50.0
_INTERVAL = 1.0
# How often process 0 reads while all wait for the answer; how long a call of the others takes.
_AGREEMENT_INTERVAL = 0.02
_MAX_CALL = 0.5
# The word of a process that waits for the others; those of closed runs, the worst first.
_LEAVING = "leaving"
_STATES = ("failed", "preempted", "finished")


@final
class Departure:
    """What the processes of a run say of its end, in JAX's coordination service.

    A process that knows that the job is about to end publishes how often it has answered `reached`
    by no, and answers no more until all have published that. All leave at the call after the
    highest number, which no process has answered yet. Process 0 reads the numbers and publishes
    it, as N processes would read N * N; if it has closed, the others read them now and then.
    Nothing is exchanged before; a thread looks now and then whether another process leaves.

    Attributes:
        noticed: whether a notice of preemption reached any process, as far as this one knows.
    """

    def __init__(self, store: Store, folder: str, index: int, process_count: int) -> None:
        """
        Args:
            store: JAX's key-value store.
            folder: folder of the keys, for this run alone, the same on every process.
            index: index of this process.
            process_count: number of processes.
        """
        self.noticed = False
        self._is_notified: Callable[[], bool] = lambda: False
        self._store = store
        self._folder = folder
        self._index = index
        self._count = process_count
        self._pause = max(_INTERVAL, process_count / _MAX_READS)
        # Held while a call is answered, and while the processes agree.
        self._lock = threading.Lock()
        self._answered = 0
        self._last: int | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, is_notified: Callable[[], bool]) -> None:
        """Start to look for a notice: `is_notified` says whether this process got one."""
        self._is_notified = is_notified
        name = "lerax_dist-departure"
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self._thread.start()

    def reached(self) -> bool:
        """Whether to leave now: the same on every process that has asked as often.

        Raises:
            TimeoutError: if processes did not say within 5 minutes how often they have asked.
        """
        with self._lock:
            if self._last is None and (self.noticed or self._is_notified()):
                self._agree()
            leaves = self._last is not None and self._answered >= self._last
            # Only what was answered by no: a slow process may read the number after this one left.
            self._answered += not leaves
            return leaves

    def close(self, state: str) -> str:
        """Publish how the run ended here; returns the worst state that is known of any process."""
        self._closing.set()
        states = {state}
        try:
            if self._index != 0:
                # Known at once, while a message to a process that is gone would hang.
                check_service(joined_address())
            self._publish(state, _CLOSE_TIMEOUT)
            if self._index == 0:
                states.update(word for word, _ in self._read(_CLOSE_TIMEOUT).values())
        except RuntimeError:
            pass  # the service is gone, and process 0 with it
        if self._thread is not None:
            # One that is in the service when Python ends would abort the process.
            self._thread.join(_CLOSE_TIMEOUT)
        return next((each for each in _STATES if each in states), state)

    def _watch(self) -> None:
        # A service that is lost, or a process that does not answer, is found by others.
        with contextlib.suppress(RuntimeError, TimeoutError):
            while not self._is_due():
                if self._closing.wait(self._pause):
                    return
            with self._lock:
                if self._last is None:
                    self._agree()

    def _is_due(self) -> bool:
        if self._is_notified() or self._index == 0 and self._store.preemption_noticed():
            return True
        return bool(self._store.list(f"{self._folder}/due"))

    def _agree(self) -> None:
        self.noticed = True
        self._publish(_LEAVING, _TIMEOUT)
        pause, key = self._pause if self._index else _AGREEMENT_INTERVAL, f"{self._folder}/last"
        look_at = (begin := time.monotonic()) + pause
        while (text := self._store.get(key, min(look_at, time.monotonic() + _MAX_CALL))) is None:
            if self._closing.is_set():
                return
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + pause
            found = self._read(_TIMEOUT)
            missing = [i for i in range(self._count) if i not in found]
            if not missing:
                last = max(answered for _, answered in found.values())
                self._store.put(key, str(last), within=_TIMEOUT)
            elif time.monotonic() > begin + _TIMEOUT:
                raise TimeoutError(
                    f"`preempted` timed out after {_TIMEOUT:g} s: {name_processes(missing)} did "
                    "not say how often they have asked. They are stuck, or were made without "
                    "`handle_signals=True`: pass it on every process."
                )
        self._last = int(text)

    def _publish(self, word: str, within: float) -> None:
        key = f"{self._folder}/said/{self._index}"
        self._store.put(key, f"{word} {self._answered}", within=within)
        if word in (_LEAVING, "preempted"):
            self._store.put(f"{self._folder}/due/any", "", within=within)

    def _read(self, within: float | None = None) -> dict[int, tuple[str, int]]:
        """What each process has published, with how often it had answered."""
        texts = self._store.list(f"{self._folder}/said", within=within)
        pairs = {int(process): text.split() for process, text in texts.items()}
        return {process: (word, int(answered)) for process, (word, answered) in pairs.items()}
