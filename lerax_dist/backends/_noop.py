"""The backend that writes nothing."""

from typing import Any, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend


@final
class NoOpBackend(AbstractLoggingBackend):
    """Logging backend that writes nothing, for runs whose journal is enough.

    To look at rows in a test, use `MemoryBackend`.

    Example:
        ```python
        with Logger(NoOpBackend(), log_dir="logs") as logger:
            logger.log({"loss": 0.5}, step=0)
        print((logger.run_dir / "journal.jsonl").read_text())
        ```
    """

    def open(self, name: str) -> None:
        pass

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        pass

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        pass

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        pass

    def close(self) -> None:
        pass
