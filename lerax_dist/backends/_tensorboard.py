"""TensorBoard event files, one event a row."""

import contextlib
import itertools
import os
import time
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend
from lerax_dist.backends._closed import already_open, not_open
from lerax_dist.backends._events import RowEvent, hparams_event, resume_event, video_event
from lerax_dist.backends._gif import encode_gif

_FILE_NUMBERS = itertools.count()


@final
class TensorBoardBackend(AbstractLoggingBackend):
    """Logging backend that writes to TensorBoard via tensorboardX.

    The files go to `log_dir / name`, a new one for each `open`; older ones stay as they are.
    A row is one event with all its values, written in the calling thread and handed to the
    operating system before the call returns, so that it outlives the process.

    Steps are exact up to 64 bits; values are float32, which is all that the format has. NaN and
    infinities are written as they are. Hyperparameters become a table under "Text" and videos
    animated images under "Images", at up to 50 frames a second.

    Attributes:
        log_dir: base folder of the event files.

    Args:
        log_dir: base folder of the event files.

    Example:
        ```python
        with Logger(TensorBoardBackend("logs"), "curves") as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)
        print(list(Path("logs/curves").glob("*tfevents*")))  # see it: tensorboard --logdir logs
        ```
    """

    def __init__(self, log_dir: str | Path = "logs") -> None:
        self._log_dir = Path(log_dir)
        self._run_dir: Path | None = None
        self._writer: Any = None
        self._row = RowEvent(())

    @property
    def log_dir(self) -> Path:
        return self._log_dir

    def open(self, name: str) -> None:
        if self._run_dir is not None:
            raise already_open(self, name)
        # Absolute: the program may change its folder.
        run_dir = (self._log_dir / name).resolve()
        run_dir.mkdir(parents=True, exist_ok=True)
        self._writer = _new_writer(run_dir)
        self._run_dir = run_dir

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self._write(hparams_event(hparams, time.time()))

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        tags = tuple(scalars)
        if tags != self._row.tags:
            self._row = RowEvent(tags)
        self._write(self._row.fill(scalars, step, time.time()))

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        gif = encode_gif(frames, fps)
        self._write(video_event(tag, gif, np.shape(frames), step, time.time()))

    def on_resume(self, start_step: int) -> None:
        """Hide what older files hold at this step or after it; TensorBoard purges it.

        Args:
            start_step: where the run goes on.
        """
        self._write(resume_event(start_step, time.time()))

    def close(self) -> None:
        writer, self._writer, self._run_dir = self._writer, None, None
        if writer is not None:
            writer.close()

    def _write(self, event: Any) -> None:
        if self._run_dir is None:
            raise not_open(self)
        if self._writer is None:
            self._writer = _new_writer(self._run_dir)
        writer = self._writer
        try:
            writer.write_event(event)
            _flush(writer)
        except OSError:
            # Readers give up a file at its first broken record, and this one may end in half a
            # record now. Whoever tries again gets a fresh file, which TensorBoard reads next.
            self._writer = None
            with contextlib.suppress(OSError):
                _file(writer).close()
            raise


def _new_writer(run_dir: Path) -> Any:
    # Inside: a process that does not write must not load tensorboardX.
    from tensorboardX.event_file_writer import EventsWriter

    # tensorboardX names a file by host and whole second and opens it for overwriting. Readers take
    # files in the order of their names, so the part that makes it unique has to sort by time.
    unique = f".{time.time_ns():020d}.{os.getpid()}.{next(_FILE_NUMBERS)}"
    writer = EventsWriter(str(run_dir / "events"), filename_suffix=unique)
    _flush(writer)
    return writer


def _flush(writer: Any) -> None:
    """Hand what was written to the operating system."""
    # The public `flush` also waits for the disk, which nothing that a dying process needs is worth
    # at each row; hence the file underneath, as long as it is where it is in tensorboardX 2.6.
    _file(writer).flush()


def _file(writer: Any) -> Any:
    return getattr(getattr(writer, "_py_recordio_writer", None), "_writer", writer)
