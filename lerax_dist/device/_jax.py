"""What the loggers ask of JAX outside of the row itself: scope, learning rates, callbacks."""

import threading
from typing import Any

import jax
from jax import numpy as jnp
from jax.core import Tracer
from jax.tree_util import keystr

from lerax_dist.device._axes import find_axes


def check_scope(scope: str, process_count: int) -> None:
    """Check that rows of the step that is being traced can be merged over all processes.

    Args:
        scope: `"global"` or `"process"`.
        process_count: number of processes.

    Raises:
        RuntimeError: if the step is not compiled, so it cannot span processes, but should.
        ValueError: if the step spans processes, but should not.
    """
    if process_count == 1:
        return
    if scope == "global":
        if not isinstance(jnp.zeros(()), Tracer):
            raise RuntimeError(
                f"`on_iteration` was called outside of `jit` in a run of {process_count} "
                "processes, where it cannot reduce over them. Call it in the compiled step, or log "
                "reduced values with `Logger`."
            )
        return
    axes = find_axes(None)
    devices = axes.size(axes.manual)
    if devices > jax.local_device_count():
        raise ValueError(
            f'`scope` is "process", but the step runs over {devices} devices of several processes; '
            f'this one has {jax.local_device_count()}. Pass `scope="global"`, or compile a program '
            "over `jax.local_devices()` in each process."
        )


def learning_rates(opt_state: Any) -> dict[str, Any]:
    """`train/learning_rate`, if the state of the optimizer holds one.

    `optax.inject_hyperparams` puts it there. Several (`optax.multi_transform`) are distinguished by
    their paths in the state.

    Args:
        opt_state: state of any optimizer, a pytree.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        last = path[-1] if path else None
        name = getattr(last, "key", getattr(last, "name", None))
        if name == "learning_rate" and getattr(leaf, "shape", None) == ():
            found[keystr(path[:-1], simple=True, separator=".")] = leaf
    if len(found) == 1:
        return {"train/learning_rate": next(iter(found.values()))}
    return {f"train/learning_rate/{path}": rate for path, rate in found.items()}


def wait_for_callbacks(timeout: float) -> str | None:
    """Wait until the callbacks of all programs that this thread has started are delivered.

    `jax.effects_barrier()` is the public way, but it has no time limit, and it knows only what the
    calling thread has dispatched, so another thread cannot wait in it. A step whose peer has died
    never ends, so this waits for the same tokens one level below.

    Args:
        timeout: how long to wait at most, in seconds.

    Returns:
        What is missing, or `None`.
    """
    tokens = _runtime_tokens()
    if tokens is None:
        try:
            jax.effects_barrier()
        except Exception as error:
            return _step_failed(error)
        return None
    errors: list[Exception] = []

    def wait() -> None:
        for token in tokens:
            try:
                token.block_until_ready()
            except Exception as error:
                errors.append(error)

    if tokens:
        thread = threading.Thread(target=wait, name="lerax_dist-callbacks", daemon=True)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            return f"the devices have not finished the steps that were started after {timeout:g} s"
    return _step_failed(errors[0]) if errors else None


def _step_failed(error: Exception) -> str:
    return f"a step has failed, so its rows may be missing ({error!r})"


def _runtime_tokens() -> list[Any] | None:
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
