"""Whether a step fits what the logger was told about the processes. Asked while tracing."""

import jax
from jax import numpy as jnp
from jax.core import Tracer

from lerax_dist.device._axes import find_axes


def check_program(scope: str, process_count: int) -> None:
    """Check that rows of the step that is being traced can be merged over all processes.

    Args:
        scope: `"global"` or `"process"`.
        process_count: number of processes.

    Raises:
        RuntimeError: the step is not compiled, so it cannot span processes, but should.
        ValueError: the step spans processes, but should not.
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
