"""The thread that exchanges heartbeats: it observes, calls `step`, and does what is due."""

import contextlib
import dataclasses
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import final

from lerax_dist.cluster._store import Store, joined_address, joined_client
from lerax_dist.cluster.liveness._exit import end_process
from lerax_dist.cluster.liveness._heartbeat import decode_status
from lerax_dist.cluster.liveness._step import Log, Observation, Publish, Setup, State, step

FOLDER = "lerax_dist/liveness"
# How long process 0 may take to answer a read and to take a message.
_READ_TIMEOUT = 0.5
WRITE_TIMEOUT = 3.0
_MAX_REASON_LENGTH = 300


@final
class HeartbeatMonitor:
    """Sends heartbeats and reads those of the others, as long as the process lives.

    Messages go to standard error, each once. Any thread may read the state.
    """

    def __init__(self, setup: Setup) -> None:
        self.state = State(setup, time.monotonic())
        self.leaving = threading.Event()
        self.client = joined_client()
        self.store = Store(self.client)
        self._stepped = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lerax_dist-heartbeat", daemon=True)

    def start(self) -> None:
        """Send a first heartbeat and start the thread."""
        # From the first heartbeat of process 0 on it can be missed, so this waits longer for it.
        self.turn(WRITE_TIMEOUT)
        self._thread.start()

    def stop(self) -> None:
        """End the thread: one that is in the service when Python ends would abort the process."""
        self._stop.set()
        # Longer than its longest turn, which reads and then writes.
        self._thread.join(timeout=_READ_TIMEOUT + WRITE_TIMEOUT + 1.0)

    def turn(self, timeout: float = _READ_TIMEOUT) -> bool:
        """Observe, step, act; false once the program has left the service by itself."""
        try:
            observation = self._read(timeout)
        except RuntimeError as error:
            # JAX's shutdown may be under way, and process 0 be through with it.
            if self._stop.wait(0.2) or joined_client() is not self.client:
                return False
            observation = Observation(service_error=str(error))
        self._step(observation)
        return True

    def report_lost_service(self, error: str) -> None:
        """Log that the service is lost, unless the cause is known already."""
        self._step(Observation(service_error=error))

    def wait_for(self, condition: Callable[[State], bool], timeout: float) -> bool:
        """Wait until the state fulfills a condition; whether it does."""
        with self._stepped:
            return self._stepped.wait_for(lambda: condition(self.state), timeout)

    def log(self, text: str) -> None:
        """Write a message to standard error."""
        setup = self.state.setup
        own = f"process {setup.index} of {setup.count} on {setup.host}"
        with contextlib.suppress(Exception):
            sys.stderr.write(f"lerax_dist: {text} (this is {own})\n")
            sys.stderr.flush()

    def _run(self) -> None:
        while not self._stop.wait(self.state.pause):
            if not self.turn():
                return

    def _step(self, observation: Observation) -> None:
        ending = self.leaving.is_set() or not threading.main_thread().is_alive()
        observation = dataclasses.replace(observation, own_failure=own_failure(), ending=ending)
        with self._stepped:
            state, actions = step(self.state, observation, time.monotonic())
            self.state = state
            self._stepped.notify_all()
        for action in actions:
            match action:
                case Log(text):
                    self.log(text)
                case Publish(key, text):
                    # A service that is lost is found by the next observation.
                    with contextlib.suppress(RuntimeError):
                        self.store.put(f"{FOLDER}/{key}", text, within=WRITE_TIMEOUT)
        if state.ended:
            end_process()

    def _read(self, timeout: float) -> Observation:
        if self.state.service_error:
            return Observation(service_error=self.state.service_error)
        return self._read_all() if self.state.setup.index == 0 else self._read_status(timeout)

    def _read_all(self) -> Observation:
        """Process 0: the heartbeats of the others, and how they ended."""
        numbers = {i: int(number) for i, number in self._list(f"{FOLDER}/heartbeats").items()}
        ends = self._list(f"{FOLDER}/ends")
        failed = {i: reason for i, reason in ends.items() if reason}
        all_known = len(self.state.hosts) == self.state.setup.count
        hosts = {} if all_known else self._list("lerax_dist/hosts")
        finished = frozenset(ends.keys() - failed.keys())
        return Observation(numbers=numbers, failed=failed, finished=finished, hosts=hosts)

    def _read_status(self, timeout: float) -> Observation:
        """Another process: what process 0 has published."""
        text = self.store.get(f"{FOLDER}/status", time.monotonic() + timeout)
        if text is None:
            check_service(joined_address())
            return Observation(answered=False)
        status = decode_status(text)
        return Observation(
            numbers={0: status.number},
            reported=status.unresponsive,
            failed=status.failed,
            hosts=status.hosts,
        )

    def _list(self, folder: str) -> dict[int, str]:
        return {int(index): text for index, text in self.store.list(folder).items()}


def check_service(address: str) -> None:
    """Raise a RuntimeError if the host of the service says at once that no program listens there.

    Nothing is raised without an answer: the host may be unreachable, the program alive.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except ConnectionRefusedError as error:
        raise RuntimeError(f"no program listens at {address} any more") from error
    except (OSError, ValueError):
        pass


def own_failure() -> str:
    """The exception that has ended the program; empty while it runs or if it ended without one."""
    # Set by the interpreter, and by interactive shells while they go on.
    value = getattr(sys, "last_value", None)
    if value is None or threading.main_thread().is_alive():
        return ""
    return " ".join(f"{type(value).__name__}: {value}".split())[:_MAX_REASON_LENGTH]
