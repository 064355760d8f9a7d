"""TensorBoard event files, one event a row."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist.backends._base import AbstractLoggingBackend, already_open, not_open
from lerax_dist.backends._crc32c import Checksum
from lerax_dist.backends._event_file import EventFile
from lerax_dist.backends._events import (
    as_records,
    markdown_table,
    resume_event,
    text_event,
    video_event,
)
from lerax_dist.backends._gif import encode_gif
from lerax_dist.backends._row_record import RowRecord, encode_step
from lerax_dist.backends._run_text import run_markdown
from lerax_dist.backends._tensorboard_bands import find_bands, layout_event
from lerax_dist.backends._tensorboard_hparams import SessionFile

# Rows of training and of evaluation take turns; more kinds than this would be names made of data.
_MOST_TEMPLATES = 32


@final
class TensorBoardBackend(AbstractLoggingBackend):
    """Logging backend that writes to TensorBoard via tensorboardX.

    The files go to `log_dir / name`, a new one for each `open`; older ones stay as they are.
    A row is one event with all its values, written in the calling thread and handed to the
    operating system before the call returns, so that it outlives the process.

    Steps are exact up to 64 bits; values are float32, which is all that the format has. NaN and
    infinities are written as they are. Hyperparameters stand under "HParams", beside those of other
    runs, and as a table under "Text", and so does what is known of the run (launcher, devices,
    versions, commit). A metric that comes with its `_min` and `_max`, as `episode/return` does, is
    drawn in its band under "Custom Scalars". Videos are animated images under "Images", at up to 50
    frames a second.

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
        self._file: EventFile | None = None
        self._templates: dict[tuple[tuple[str, ...], int], RowRecord] = {}
        self._checksum: Checksum | None = None
        self._started = 0.0
        self._texts: dict[str, str] = {}
        self._hparams: dict[str, Any] = {}
        self._session: SessionFile | None = None
        self._bands: list[str] = []

    @property
    def log_dir(self) -> Path:
        return self._log_dir

    def open(self, name: str) -> None:
        if self._run_dir is not None:
            raise already_open(self, name)
        # Absolute: the program may change its folder.
        run_dir = (self._log_dir / name).resolve()
        run_dir.mkdir(parents=True, exist_ok=True)
        self._file = EventFile(run_dir)
        self._checksum = _native_checksum()
        self._run_dir = run_dir
        self._started = time.time()
        self._session = SessionFile(run_dir)
        self._texts, self._hparams, self._bands = {}, {}, []

    def on_run(self, facts: dict[str, Any]) -> None:
        """Write what is known of the run, as a text `run`.

        Args:
            facts: see `SupportsRunFacts`.
        """
        self._started = facts.get("time") or self._started
        self._write_text("run", run_markdown(facts))

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        # Also those of earlier calls: of several sessions and texts a reader sees one.
        self._hparams = {**self._hparams, **hparams}
        self._write_text("hparams", markdown_table(self._hparams))
        if self._session is not None and self._hparams:
            self._session.start(self._hparams, self._started, time.time())

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        values = np.fromiter(scalars.values(), np.float64, len(scalars))
        self.log_rows(tuple(scalars), values[None], [step], [time.time()])

    def log_rows(
        self,
        names: tuple[str, ...],
        values: np.ndarray,
        steps: Sequence[int],
        times: Sequence[float],
    ) -> None:
        """Write rows, each an event at its own time.

        Args:
            names: see `SupportsRows`.
            values: likewise.
            steps: likewise.
            times: likewise.
        """
        encoded = [encode_step(int(step)) for step in steps]
        records: list[memoryview] = []
        start = 0
        for size, group in itertools.groupby(encoded, key=len):
            own = list(group)
            rows = slice(start, start + len(own))
            filled = self._template(names, size).fill(values[rows], own, times[rows])
            records.append(filled.data)
            start = rows.stop
        self._write(b"".join(records))

    def _template(self, tags: tuple[str, ...], step_size: int) -> RowRecord:
        template = self._templates.get((tags, step_size))
        if template is None:
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            # First: if it fails, these tags come this way again.
            self._show_bands(tags)
            template = RowRecord(tags, step_size, self._checksum)
            self._templates[tags, step_size] = template
        return template

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        gif = encode_gif(frames, fps)
        self._write_event(video_event(tag, gif, np.shape(frames), step, time.time()))

    def on_resume(self, start_step: int) -> None:
        """Hide what older files hold at this step or after it; TensorBoard purges it.

        Args:
            start_step: where the run goes on.
        """
        now = time.time()
        # Twice: the first of a run is its beginning to TensorBoard, which purges nothing then.
        events = [resume_event(start_step, now)] * 2
        if start_step <= 0:
            # Texts and layout stand at step 0, and go with the rest.
            events += [text_event(*text, now) for text in self._texts.items()]
            if self._bands:
                events.append(layout_event(self._bands, now))
        self._write(as_records(events))

    def on_end(self, state: str) -> None:
        """Write how the run ended, for the HParams tab.

        Args:
            state: see `SupportsRunEnd`.
        """
        if self._session is not None:
            self._session.end(state, time.time())

    def close(self) -> None:
        file, self._file, self._run_dir = self._file, None, None
        # Tags that come again after `open` must show their bands again.
        self._session = None
        self._templates.clear()
        if file is not None:
            file.close()

    def _show_bands(self, tags: tuple[str, ...]) -> None:
        fresh = [tag for tag in find_bands(tags) if tag not in self._bands]
        if fresh:
            self._write_event(layout_event([*self._bands, *fresh], time.time()))
            self._bands += fresh

    def _write_text(self, tag: str, markdown: str) -> None:
        self._texts[tag] = markdown
        self._write_event(text_event(tag, markdown, time.time()))

    def _write_event(self, event: Any) -> None:
        self._write(as_records([event]))

    def _write(self, records: bytes) -> None:
        if self._run_dir is None:
            raise not_open(self)
        # Put back once it has taken them: one that fails is not used again.
        file, self._file = self._file or EventFile(self._run_dir), None
        file.append(records)
        self._file = file


def _native_checksum() -> Checksum | None:
    """CRC-32C in C, if the package is there."""
    try:
        # Inside, after tensorboardX, which tells it to be quiet where the processor cannot help.
        from crc32c import crc32c
    except ImportError:
        return None
    return crc32c
