"""What a user passes as `backend`: checked, and given all hooks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend

_METHODS = ("open", "log_hparams", "log_scalars", "log_video", "close")
_HOOKS = (
    *("new_run_id", "on_identity", "on_run", "on_training_start", "on_resume", "on_end"),
    *("log_rows", "log_vectors"),
)


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
        missing = [method for method in _METHODS if not callable(getattr(member, method, None))]
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

    Args:
        backend: a backend, which is returned as it is, or e.g. one of lerax's own. Hooks that it
            has, by name, are called as well.
    """
    return backend if isinstance(backend, AbstractLoggingBackend) else _DuckBackend(backend)


def takes_batches(backend: AbstractLoggingBackend) -> bool:
    """Whether a backend overrides `log_rows`, so that rows are sent to it together."""
    return getattr(backend.log_rows, "__func__", None) is not AbstractLoggingBackend.log_rows


def hides_rows(backend: AbstractLoggingBackend) -> bool:
    """Whether a backend overrides `on_resume`, so that it may hide superseded rows."""
    return getattr(backend.on_resume, "__func__", None) is not AbstractLoggingBackend.on_resume


@final
class _DuckBackend(AbstractLoggingBackend):
    """An object with the five methods as a backend; hooks that it has replace the empty ones."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        for hook in _HOOKS:
            if hasattr(inner, hook):
                setattr(self, hook, getattr(inner, hook))

    def open(self, name: str) -> None:
        self._inner.open(name)

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self._inner.log_hparams(hparams)

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        self._inner.log_scalars(scalars, step)

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        self._inner.log_video(tag, frames, step, fps)

    def close(self) -> None:
        self._inner.close()
