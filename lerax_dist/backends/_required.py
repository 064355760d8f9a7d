"""Backends without which a run must not start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, eq=False)
class Required:
    """Marks a backend without which a run must not start.

    A backend that cannot be opened is left out with a warning, and the training goes on. With this
    around it, the logger raises instead, on every process alike, before a step is spent.

    Attributes:
        backend: the backend.

    Example:
        ```python
        backends = [ConsoleBackend(), Required(TensorBoardBackend("logs"))]
        with Logger(backends) as logger:
            logger.log({"loss": 0.5}, step=0)
        ```
    """

    backend: Any


def unwrap(backend: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a user gave as backends, without the marks, and those that were marked.

    Args:
        backend: one or several of whatever; anything else comes back as it is.
    """
    if isinstance(backend, Required):
        return backend.backend, (backend.backend,)
    if isinstance(backend, (str, bytes, Mapping)) or not hasattr(backend, "__iter__"):
        return backend, ()
    given = list(backend)
    bare = [each.backend if isinstance(each, Required) else each for each in given]
    return bare, tuple(each.backend for each in given if isinstance(each, Required))
