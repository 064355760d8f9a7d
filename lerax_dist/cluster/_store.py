"""JAX's coordination service: a key-value store in process 0 that every process can reach.

The only use of private JAX names in this package. Checked on jax 0.10.2 and 0.12.0.
"""

import ctypes
import threading
import time
from typing import Any, final

# A wait in the client cannot be interrupted, and Python runs signal handlers between calls only.
_LONGEST_CALL = 1.0


def joined_client() -> Any | None:
    """The client of JAX's coordination service, None if this process has not joined one.

    Raises:
        RuntimeError: this JAX keeps it elsewhere.
    """
    try:
        from jax._src import distributed

        return distributed.global_state.client
    except (ImportError, AttributeError) as error:
        raise _unknown_jax() from error


def joined_place() -> tuple[int, int]:
    """Index of this process and number of processes in the coordination service.

    Not `jax.process_index()`, which starts the devices.
    """
    try:
        from jax._src import distributed

        return distributed.global_state.process_id, distributed.global_state.num_processes
    except (ImportError, AttributeError) as error:
        raise _unknown_jax() from error


def joined_address() -> str:
    """Where the coordination service listens, "host:port"."""
    try:
        from jax._src import distributed

        return distributed.global_state.coordinator_address or ""
    except (ImportError, AttributeError) as error:
        raise _unknown_jax() from error


def devices_have_started() -> bool:
    """Whether a JAX computation or query has started the devices, so that joining is too late."""
    try:
        from jax._src import xla_bridge

        return xla_bridge.backends_are_initialized()
    except (ImportError, AttributeError):
        return False  # `jax.distributed.initialize()` finds out by itself, only later


def forget_service() -> None:
    """Have this process leave the coordination service without a word when it exits.

    JAX's own way waits at a barrier for all the others, also for those that are dead or hang, and
    then aborts. What is forgotten is never freed: its destructor would go to that barrier.
    """
    try:
        from jax._src import distributed

        state = distributed.global_state
    except (ImportError, AttributeError) as error:
        raise _unknown_jax() from error
    for name in ("preemption_sync_manager", "client", "service"):
        thing = getattr(state, name, None)
        if thing is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
            setattr(state, name, None)


def _unknown_jax() -> RuntimeError:
    import jax

    return RuntimeError(
        f"`jax` {jax.__version__} does not have its coordination service where lerax_dist looks "
        "(checked on 0.10.2 and 0.12.0). Install one of these, or pass `group=MPIGroup()`."
    )


@final
class Store:
    """Text under keys, shared by all processes. Usable from any thread."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, key: str, text: str) -> None:
        """Set `key`, whether or not it is set. Waits for ever if process 0 cannot be reached."""
        self._client.key_value_set(key, text, True)

    def put_within(self, key: str, text: str, seconds: float) -> None:
        """Set `key`, and wait at most so many seconds for process 0 to take it.

        Raises:
            RuntimeError: it did not answer, or is gone.
        """
        failures: list[Exception] = []

        def put() -> None:
            try:
                self.put(key, text)
            except RuntimeError as error:
                failures.append(error)

        # The client gives a message no time limit of its own.
        thread = threading.Thread(target=put, name="lerax_dist-put", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            raise RuntimeError(f"process 0 has not answered for {seconds:g} s")
        if failures:
            raise failures[0]

    def get(self, key: str, deadline: float) -> str | None:
        """Wait for `key`.

        Args:
            key: key to wait for.
            deadline: time of `time.monotonic()` at which the wait ends.

        Returns:
            Its text, or None if it was not set in time.
        """
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                span = max(int(1000 * min(left, _LONGEST_CALL)), 1)
                return self._client.blocking_key_value_get(key, span)
            except RuntimeError as error:
                if not str(error).startswith("DEADLINE_EXCEEDED"):
                    raise
                if left <= _LONGEST_CALL:
                    return None

    def list(self, folder: str) -> dict[str, str]:
        """Last part of each key in a folder, with its text."""
        return {
            key.rpartition("/")[2]: text for key, text in self._client.key_value_dir_get(folder)
        }

    def count(self, key: str) -> int:
        """Add 1 to the number under `key`, which starts at 0, and return it."""
        return self._client.key_value_increment(key, 1)

    def delete(self, folder: str) -> None:
        """Delete a key, or a folder with all that is in it."""
        self._client.key_value_delete(folder)


@final
class Board:
    """A text of each process, which every process can read. Usable from any thread.

    Args:
        store: the service.
        folder: where in it, the same on every process.
        index: index of this process.
    """

    def __init__(self, store: Store, folder: str, index: int) -> None:
        self._store = store
        self._folder = folder
        self._index = index

    def post(self, text: str) -> None:
        """Put this process's text in place of the one before."""
        self._store.put(f"{self._folder}/{self._index}", text)

    def read(self) -> dict[int, str]:
        """The text of each process that has one, by process index."""
        return {int(index): text for index, text in self._store.list(self._folder).items()}
