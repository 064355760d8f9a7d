"""What a user passes as `backend`: checked, and given all hooks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, cast, final

from lerax_dist.backends._base import AbstractLoggingBackend

_METHODS = [name for name, each in vars(AbstractLoggingBackend).items() if isfunction(each)]
_REQUIRED_METHODS = [
    name for name in _METHODS if name in AbstractLoggingBackend.__abstractmethods__
]


@final
@dataclass(frozen=True, eq=False)
class Required:
    """Marks a backend without which a run must not start.

    A backend that fails to open is disabled with a warning, and the training continues. If it is
    `Required`, the logger raises instead, on every process alike, before the first step.

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


def check_backends(backend: object) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What a user passed as `backend`: the backends, and those among them that are `Required`.

    A subclass of `AbstractLoggingBackend` is a backend; so is any object with its five abstract
    methods (lerax's own backends are), see `as_backend`.

    Raises:
        ValueError: a sequence is empty, or contains one backend twice.
        TypeError: something is not a backend.
    """
    several = hasattr(backend, "__iter__") and not isinstance(backend, (str, bytes, Mapping))
    given: tuple[Any, ...] = tuple(cast(Iterable[Any], backend)) if several else (backend,)
    members = tuple(each.backend if isinstance(each, Required) else each for each in given)
    if not members:
        raise ValueError(
            "`backend` must contain at least one backend, got an empty sequence. "
            "Use `NoOpBackend()` to log to the journal only."
        )
    for member in members:
        if isinstance(member, type):
            raise TypeError(
                f"`backend` must be a logging backend, got the class {member.__name__}. "
                "Call it to make an instance."
            )
        missing = [
            method for method in _REQUIRED_METHODS if not callable(getattr(member, method, None))
        ]
        if missing:
            raise TypeError(
                f"`backend` must be a logging backend, got {member!r}. "
                f"Subclass `AbstractLoggingBackend`; it lacks {', '.join(missing)}."
            )
    if len({id(member) for member in members}) != len(members):
        raise ValueError(
            f"`backend` contains one backend twice: {members!r}. "
            "Pass one instance for each destination."
        )
    return members, tuple(each.backend for each in given if isinstance(each, Required))


def as_backend(backend: Any) -> AbstractLoggingBackend:
    """A backend with all hooks, of any object with the five abstract methods.

    A backend is returned as it is. Hooks that another object has, by name, are called as well.
    """
    if isinstance(backend, AbstractLoggingBackend):
        return backend
    names = [name for name in _METHODS if hasattr(backend, name)]
    methods = {name: staticmethod(getattr(backend, name)) for name in names}
    return type(type(backend).__name__, (AbstractLoggingBackend,), methods)()


def takes_batches(backend: AbstractLoggingBackend) -> bool:
    """Whether a backend overrides `log_rows`, so that rows are sent to it together."""
    return getattr(backend.log_rows, "__func__", None) is not AbstractLoggingBackend.log_rows
