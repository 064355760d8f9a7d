"""Waiting, with a limit, until the devices have delivered what was started.

`jax.effects_barrier()` is the public way to wait for callbacks, but it has no time limit, and it
knows only what the calling thread has dispatched, so it cannot be waited for from another thread.
A step whose peer has died never ends, so this waits for the same tokens one level below.
"""

import threading
from typing import Any

import jax


def settle(timeout: float) -> str | None:
    """Wait until the callbacks of all programs that this thread has started are delivered.

    Args:
        timeout: how long to wait at most, in seconds.

    Returns:
        What is missing, or `None`.
    """
    tokens = _tokens()
    if tokens is None:
        try:
            jax.effects_barrier()
        except Exception as error:
            return _failed(error)
        return None
    trouble: list[Exception] = []

    def wait() -> None:
        for token in tokens:
            try:
                token.block_until_ready()
            except Exception as error:
                trouble.append(error)

    if tokens:
        thread = threading.Thread(target=wait, name="lerax_dist-settle", daemon=True)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            return f"the devices have not finished the steps that were started after {timeout:g} s"
    return _failed(trouble[0]) if trouble else None


def _failed(error: Exception) -> str:
    return f"a step has failed, so its rows may be missing ({error!r})"


def _tokens() -> list[Any] | None:
    """What `jax.effects_barrier` waits for; `None` if this JAX keeps it elsewhere.

    Checked on jax 0.10.2 and 0.12.0.
    """
    try:
        from jax._src.dispatch import runtime_tokens

        return [
            *runtime_tokens.current_tokens.values(),
            *runtime_tokens.output_runtime_tokens.values(),
        ]
    except (ImportError, AttributeError):
        return None
