"""JAX's coordination service: a key-value store in process 0 that every process can read.

The only use of private JAX names beside `device/_callback.py`. Checked on jax 0.10.2 and 0.12.0.
"""

import time
from collections.abc import Callable
from typing import Any, final

from lerax_dist._timed_call import TimedCaller

# A wait in the client cannot be interrupted, and Python runs signal handlers between calls only.
_MAX_CALL = 1.0
# Where JAX keeps that one of the processes got SIGTERM, its notice of preemption.
_PREEMPTION_KEY = "RECEIVED_PREEMPTION_NOTICE"

_caller = TimedCaller("lerax_dist-store")


def service_state() -> Any:
    """What JAX keeps about the coordination service; raises a RuntimeError if that is elsewhere."""
    try:
        from jax._src import distributed

        return distributed.global_state
    except (ImportError, AttributeError) as error:
        raise _unknown_jax() from error


def joined_client() -> Any | None:
    """The client of JAX's coordination service, None if this process has not joined one."""
    return _attribute("client")


def joined_place() -> tuple[int, int]:
    """Index of this process and number of processes in the coordination service.

    Not `jax.process_index()`, which starts the devices.
    """
    return _attribute("process_id"), _attribute("num_processes")


def joined_address() -> str:
    """Where the coordination service listens, "host:port"."""
    return _attribute("coordinator_address") or ""


def devices_have_started() -> bool:
    """Whether a JAX computation or query has started the devices, so that joining is too late."""
    try:
        from jax._src import xla_bridge

        return xla_bridge.backends_are_initialized()
    except (ImportError, AttributeError):
        return False  # `jax.distributed.initialize()` finds out by itself, only later


def _attribute(name: str) -> Any:
    try:
        return getattr(service_state(), name)
    except AttributeError as error:
        raise _unknown_jax() from error


def _unknown_jax() -> RuntimeError:
    import jax

    return RuntimeError(
        f"`jax` {jax.__version__} does not have its coordination service where lerax_dist looks "
        "(checked on 0.10.2 and 0.12.0). Install one of these, or pass `group=MPIGroup()`."
    )


@final
class Unanswered(RuntimeError):
    """Process 0, which holds the service, did not answer in time."""


@final
class Store:
    """Text under keys, shared by all processes. Usable from any thread.

    If process 0 stands still or cannot be reached, all but `get` raise `Unanswered` after `within`
    seconds, and wait forever without it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, key: str, text: str, *, within: float | None = None) -> None:
        """Set `key`; it may be set already."""
        self._ask(lambda: self._client.key_value_set(key, text, True), within)

    def get(self, key: str, deadline: float) -> str | None:
        """Wait for `key` until `deadline` of `time.monotonic()`; None if it was not set in time."""
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            span = max(int(1000 * min(left, _MAX_CALL)), 1)  # milliseconds
            try:
                return self._client.blocking_key_value_get(key, span)
            except RuntimeError as error:
                if not str(error).startswith("DEADLINE_EXCEEDED"):
                    raise
                if left <= _MAX_CALL:
                    return None

    def list(self, folder: str, *, within: float | None = None) -> dict[str, str]:
        """Text by the last part of the key, of all keys in a folder."""
        found = self._ask(lambda: self._client.key_value_dir_get(folder), within)
        return {key.rpartition("/")[2]: text for key, text in found}

    def count(self, key: str, *, within: float | None = None) -> int:
        """Add 1 to the number under `key`, which starts at 0, and return it."""
        return self._ask(lambda: self._client.key_value_increment(key, 1), within)

    def delete(self, folder: str, *, within: float | None = None) -> None:
        """Delete a key, or a folder with all that is in it."""
        self._ask(lambda: self._client.key_value_delete(folder), within)

    def preemption_noticed(self, *, within: float | None = None) -> bool:
        """Whether JAX knows of a SIGTERM that reached any process since it has joined."""
        try:
            self._ask(lambda: self._client.key_value_try_get(_PREEMPTION_KEY), within)
        except Unanswered:
            raise
        except (AttributeError, RuntimeError):
            return False  # not set, or a JAX that keeps it elsewhere
        return True

    def _ask(self, call: Callable[[], Any], within: float | None) -> Any:
        """The answer to a call of the client's, which has no timeout."""
        if within is None:
            return call()
        try:
            return _caller.call(call, within)
        except TimeoutError as error:
            raise Unanswered(f"process 0 has not answered for {within:g} s") from error


@final
class KeyPerProcess:
    """A text of each process, which every process can read. Usable from any thread.

    `folder` is that of the keys, the same on every process, and `index` this process's.
    """

    def __init__(self, store: Store, folder: str, index: int) -> None:
        self._store = store
        self._folder = folder
        self._index = index

    def set(self, text: str) -> None:
        """Replace this process's text."""
        self._store.put(f"{self._folder}/{self._index}", text)

    def read_all(self) -> dict[int, str]:
        """The text of each process that has set one, by process index."""
        return {int(index): text for index, text in self._store.list(self._folder).items()}
