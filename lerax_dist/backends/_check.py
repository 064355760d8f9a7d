"""What a user passes as `backend`: checked, and given all hooks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend

_METHODS = ("open", "log_hparams", "log_scalars", "log_video", "close")


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


def unwrap(backend: object) -> tuple[Any, tuple[Any, ...]]:
    """What a user passed as `backend` without the `Required` marks, and the marked backends.

    Args:
        backend: one backend or several; anything else is returned as it is, see `check_backends`.
    """
    if isinstance(backend, Required):
        return backend.backend, (backend.backend,)
    if not _is_sequence(backend):
        return backend, ()
    given = list(backend)
    bare = [each.backend if isinstance(each, Required) else each for each in given]
    return bare, tuple(each.backend for each in given if isinstance(each, Required))


def check_backends(backend: object) -> tuple[Any, ...]:
    """One backend or a sequence of them, as a tuple of the same objects.

    A subclass of `AbstractLoggingBackend` is a backend; so is any object with its five abstract
    methods (lerax's own backends are), see `as_backend`.

    Raises:
        ValueError: the sequence is empty, or contains one backend twice.
        TypeError: something in it is not a backend.
    """
    members = tuple(backend) if _is_sequence(backend) else (backend,)
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
    return members


def as_backend(backend: Any) -> AbstractLoggingBackend:
    """A backend with all hooks, of any object with the five abstract methods.

    Args:
        backend: a backend, which is returned as it is, or e.g. one of lerax's own. Hooks that it
            has, by name, are called as well.
    """
    return backend if isinstance(backend, AbstractLoggingBackend) else _DuckBackend(backend)


def takes_batches(backend: object) -> bool:
    """Whether a backend has a `log_rows` of its own, so that rows are sent to it together."""
    if isinstance(backend, _DuckBackend):
        backend = backend.inner
    if isinstance(backend, AbstractLoggingBackend):
        return type(backend).log_rows is not AbstractLoggingBackend.log_rows
    return hasattr(backend, "log_rows")


@final
class _DuckBackend(AbstractLoggingBackend):
    """Passes calls on to an object with the five methods, and the hooks that it has."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def open(self, name: str) -> None:
        self.inner.open(name)

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self.inner.log_hparams(hparams)

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        self.inner.log_scalars(scalars, step)

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        self.inner.log_video(tag, frames, step, fps)

    def close(self) -> None:
        self.inner.close()

    def on_identity(self, run_id: str, incarnation: int) -> None:
        self._call("on_identity", run_id, incarnation)

    def on_run(self, facts: dict[str, Any]) -> None:
        self._call("on_run", facts)

    def on_training_start(self, total_timesteps: int, total_iterations: int) -> None:
        self._call("on_training_start", total_timesteps, total_iterations)

    def on_resume(self, start_step: int) -> None:
        self._call("on_resume", start_step)

    def on_end(self, state: str) -> None:
        self._call("on_end", state)

    def log_rows(
        self,
        names: tuple[str, ...],
        values: np.ndarray,
        steps: Sequence[int],
        times: Sequence[float],
    ) -> None:
        if takes_batches(self):
            self._call("log_rows", names, values, steps, times)
        else:
            super().log_rows(names, values, steps, times)

    def log_vectors(self, vectors: dict[str, np.ndarray], step: int) -> None:
        self._call("log_vectors", vectors, step)

    def _call(self, hook: str, *args: object) -> None:
        method = getattr(self.inner, hook, None)
        if method is not None:
            method(*args)


def _is_sequence(backend: object) -> TypeGuard[Sequence[Any]]:
    return hasattr(backend, "__iter__") and not isinstance(backend, (str, bytes, Mapping))
