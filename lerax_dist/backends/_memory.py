"""The backend that keeps everything in memory."""

from typing import Any, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend, already_open, not_open


@final
class MemoryBackend(AbstractLoggingBackend):
    """Logging backend that keeps what it receives in memory, for tests of a training.

    Close the logger before you look: rows arrive from another thread. If the backend is used by
    several runs one after another, also by a run that is resumed, it keeps what all of them sent.

    Attributes:
        name: name of the run, `""` before `open`.
        rows: `(step, metrics)` of each row, in the order in which they arrived.
        vectors: `(step, vectors)` of each row that has some, metric name to NumPy array.
        videos: `(tag, frames, step, fps)` of each clip; `frames` is `uint8` `(T, H, W, C)`.
        hparams: all hyperparameters, flat name to value.
        facts: what is known of the run, see `AbstractLoggingBackend.on_run`.
        state: `"running"` from `open` on, then how the run ended (`"finished"`, `"failed"` or
            `"preempted"`), `""` before.
        calls: every call but those for rows and vectors, in order, as `(method, *arguments)`; a
            clip is in it with the shape of its frames.

    Example:
        ```python
        memory = MemoryBackend()
        with Logger(memory, log_dir="logs") as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)
        assert memory.rows == [(0, {"train/loss": 0.5})]
        assert memory.state == "finished"
        ```
    """

    def __init__(self) -> None:
        self.name = ""
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.vectors: list[tuple[int, dict[str, np.ndarray]]] = []
        self.videos: list[tuple[str, np.ndarray, int, float]] = []
        self.hparams: dict[str, Any] = {}
        self.facts: dict[str, Any] = {}
        self.state = ""
        self.calls: list[tuple[Any, ...]] = []
        self._is_open = False

    def on_identity(self, run_id: str, incarnation: int) -> None:
        self.calls.append(("on_identity", run_id, incarnation))

    def open(self, name: str) -> None:
        if self._is_open:
            raise already_open(self, name)
        self._is_open, self.name, self.state = True, name, "running"
        self.calls.append(("open", name))

    def on_run(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.calls.append(("on_run", facts))

    def on_training_start(self, total_timesteps: int, total_iterations: int) -> None:
        self.calls.append(("on_training_start", total_timesteps, total_iterations))

    def on_resume(self, start_step: int) -> None:
        self.calls.append(("on_resume", start_step))

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self._check_open()
        self.hparams = hparams
        self.calls.append(("log_hparams", hparams))

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        self._check_open()
        self.rows.append((step, {name: float(value) for name, value in scalars.items()}))

    def log_vectors(self, vectors: dict[str, np.ndarray], step: int) -> None:
        self._check_open()
        self.vectors.append((step, dict(vectors)))

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        self._check_open()
        self.videos.append((tag, frames, step, fps))
        self.calls.append(("log_video", tag, frames.shape, step, fps))

    def on_end(self, state: str) -> None:
        self.state = state
        self.calls.append(("on_end", state))

    def close(self) -> None:
        self._is_open = False
        self.calls.append(("close",))

    def _check_open(self) -> None:
        if not self._is_open:
            raise not_open(self)
