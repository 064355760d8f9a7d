"""The thread that exchanges heartbeats: it observes, calls `step`, and does what is due."""

import contextlib
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import final

from lerax_dist.cluster._rendezvous_address import connection_refused
from lerax_dist.cluster._store import Store, joined_address, joined_client
from lerax_dist.cluster.liveness._exit import end_process
from lerax_dist.cluster.liveness._heartbeat import decode_status
from lerax_dist.cluster.liveness._step import (
    Action,
    End,
    Log,
    Observation,
    Publish,
    Setup,
    State,
    step,
)

FOLDER = "lerax_dist/liveness"
# How long process 0 may take to answer a read and to take a message.
_READ_TIMEOUT = 0.5
WRITE_TIMEOUT = 3.0
_MAX_REASON_LENGTH = 300


@final
class HeartbeatMonitor:
    """Sends heartbeats and reads those of the others, as long as the process lives.

    Messages go to standard error, each once. The state is replaced by each step and never changed,
    so any thread may read it.

    Args:
        store: JAX's key-value store.
        setup: see `Setup`.
    """

    def __init__(self, store: Store, setup: Setup) -> None:
        self.state = State(setup, time.monotonic())
        self.leaving = threading.Event()
        self._client = joined_client()
        self._store = store
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
            observation = self._observe(timeout)
        except RuntimeError as error:
            # JAX's shutdown may be under way, and process 0 be through with it.
            if self._stop.wait(0.2) or joined_client() is not self._client:
                return False
            observation = self._observe_without_service(str(error))
        self._step(observation)
        return True

    def report_lost_service(self, error: str) -> None:
        """Log that the service is lost, unless the cause is known already."""
        self._step(self._observe_without_service(error))

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
        with self._stepped:
            self.state, actions = step(self.state, observation, time.monotonic())
            self._stepped.notify_all()
        self._do(actions)

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Log(text):
                    self.log(text)
                case Publish(key, text):
                    # A service that is lost is found by the next observation.
                    with contextlib.suppress(RuntimeError):
                        self._store.put(f"{FOLDER}/{key}", text, within=WRITE_TIMEOUT)
                case End():
                    end_process()

    def _observe(self, timeout: float) -> Observation:
        if self.state.service_error:
            return self._observe_without_service(self.state.service_error)
        read = self._read_all() if self.state.setup.index == 0 else self._read_status(timeout)
        return self._with_own(read)

    def _observe_without_service(self, error: str) -> Observation:
        return self._with_own(Observation(answered=False, service_error=error))

    def _with_own(self, observation: Observation) -> Observation:
        """The observation, with what is known about this process itself."""
        leaving = self.leaving.is_set()
        ending = leaving or not threading.main_thread().is_alive()
        return dataclasses.replace(
            observation, own_failure=own_failure(), leaving=leaving, ending=ending
        )

    def _read_all(self) -> Observation:
        """Process 0: the heartbeats of the others, and how they ended."""
        numbers = {int(i): int(number) for i, number in self._list("heartbeats").items()}
        ends = {int(i): reason for i, reason in self._list("ends").items()}
        failed = {i: reason for i, reason in ends.items() if reason}
        hosts = {}
        if len(self.state.hosts) < self.state.setup.count:
            hosts = {int(i): host for i, host in self._store.list("lerax_dist/hosts").items()}
        finished = frozenset(ends) - frozenset(failed)
        return Observation(numbers=numbers, failed=failed, finished=finished, hosts=hosts)

    def _read_status(self, timeout: float) -> Observation:
        """Another process: what process 0 has published."""
        text = self._store.get(f"{FOLDER}/status", time.monotonic() + timeout)
        if text is None:
            check_service_listens()
            return Observation(answered=False)
        status = decode_status(text)
        return Observation(
            numbers={0: status.number},
            reported=status.unresponsive,
            failed=status.failed,
            hosts=status.hosts,
        )

    def _list(self, folder: str) -> dict[str, str]:
        return self._store.list(f"{FOLDER}/{folder}")


def check_service_listens() -> None:
    """Check that the port of the coordination service is not closed.

    Raises:
        RuntimeError: its host says at once that no program listens there.
    """
    address = joined_address()
    if connection_refused(address):
        raise RuntimeError(f"no program listens at {address} any more")


def own_failure() -> str:
    """The exception that has ended the program; empty while it runs or if it ended without one."""
    # Set by the interpreter, and by interactive shells while they go on.
    value = getattr(sys, "last_value", None)
    if value is None or threading.main_thread().is_alive():
        return ""
    return " ".join(f"{type(value).__name__}: {value}".split())[:_MAX_REASON_LENGTH]
