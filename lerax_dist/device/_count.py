"""How many devices a run has."""

import jax


def count_devices(process_count: int) -> int | None:
    """Devices of all processes of a run together.

    Starts JAX, for which the processes of a program wait for each other: so all of them call this.

    Args:
        process_count: processes that log together.

    Returns:
        Those that JAX sees; if its world is this process alone, `process_count` times as many.
        `None` if JAX cannot start, which the training will say better.
    """
    try:
        alone = jax.process_count() == 1
        return jax.local_device_count() * process_count if alone else jax.device_count()
    except RuntimeError:
        return None
