"""Backends in memory: one that keeps what it is given, and some that fail in a way of their own."""

import threading
from typing import Any

import numpy as np

from lerax_dist import AbstractLoggingBackend


class Memory(AbstractLoggingBackend):
    """Keeps what it is given, and the threads that call it.

    `rows` are `(step, scalars)`, `clips` are `(tag, frames, step, fps)`, `calls` are all other
    calls in order, and those of clips without their frames.
    """

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[threading.Thread] = set()
        self.clips: list[tuple[str, np.ndarray, int, float]] = []

    def open(self, name):
        self._called("open", name)

    def on_training_start(self, total_timesteps, total_iterations):
        self._called("start", total_timesteps, total_iterations)

    def log_hparams(self, hparams):
        self._called("hparams", hparams)

    def log_scalars(self, scalars, step):
        self.threads.add(threading.current_thread())
        self.rows.append((step, scalars))

    def log_video(self, tag, frames, step, fps):
        self._called("video", tag, frames.shape, step, fps)
        self.clips.append((tag, frames, step, fps))

    def close(self):
        self._called("close")

    def _called(self, *call: Any) -> None:
        self.threads.add(threading.current_thread())
        self.calls.append(call)


class Raises(Memory):
    """Raises `error` in one of its methods, for the first `times` calls of it."""

    def __init__(self, where: str, error: BaseException, times: int = 10**9) -> None:
        super().__init__()
        self.where, self.error, self.times = where, error, times

    def open(self, name):
        self._maybe("open")
        super().open(name)

    def log_scalars(self, scalars, step):
        self._maybe("log_scalars")
        super().log_scalars(scalars, step)

    def close(self):
        self._maybe("close")
        super().close()

    def _maybe(self, where: str) -> None:
        if where == self.where and self.times > 0:
            self.times -= 1
            raise self.error


class Hangs(Memory):
    """Hangs in one of its methods until `release` is set; `began` says that it is there."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.began, self.release = where, threading.Event(), threading.Event()

    def open(self, name):
        self._hang("open")
        super().open(name)

    def log_scalars(self, scalars, step):
        self._hang("log_scalars")
        super().log_scalars(scalars, step)

    def close(self):
        self._hang("close")
        super().close()

    def _hang(self, where: str) -> None:
        if where == self.where:
            self.began.set()
            self.release.wait()


class Batches(Memory):
    """Takes many rows in one call; `failures` are raised by the first calls.

    `batches` are the arguments of every call, and `times` the time of every row.
    """

    def __init__(self, *failures: BaseException) -> None:
        super().__init__()
        self.failures = list(failures)
        self.batches: list[tuple[tuple[str, ...], np.ndarray, list[int], list[float]]] = []

    def log_rows(self, names, values, steps, times):
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append((names, values, list(steps), list(times)))
        for step, row in zip(steps, values, strict=True):
            self.rows.append((step, dict(zip(names, row.tolist(), strict=True))))

    @property
    def times(self) -> list[float]:
        return [time for *_, times in self.batches for time in times]
