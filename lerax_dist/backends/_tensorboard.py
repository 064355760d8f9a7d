"""TensorBoard event files, one event a row."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from lerax_dist.backends._base import (
    AbstractLoggingBackend,
    SetupProblem,
    already_open,
    not_open,
    one_line,
)
from lerax_dist.backends._run_text import markdown_table, run_markdown
from lerax_dist.backends._tensorboard_events import (
    EventFile,
    RowEvents,
    as_records,
    find_bands,
    layout_event,
    resume_event,
    session_end_event,
    session_start_event,
    text_event,
    version_event,
    video_event,
)
from lerax_dist.backends._video import encode_gif
from lerax_dist.journal import replace_file
from lerax_dist.journal._bucket import folder_of

# Sets of metrics whose message is kept. Training and evaluation have a few; a program with more
# makes names from its data.
_MAX_ROW_EVENTS = 32
# Hyperparameters and state of the run, in a separate file that is replaced as a whole: of
# several sessions in a run TensorBoard shows the first, so that hyperparameters logged later, or by
# the job that resumes the run, would never be seen. TensorBoard reads the files of a folder in the
# order of their names and does not return to one that it has left; so this one sorts before the
# files that rows are appended to.
_SESSION_FILE = "events.out.tfevents.0000000000.hparams"


@final
class TensorBoardBackend(AbstractLoggingBackend):
    """Logging backend that writes TensorBoard event files.

    The files are in `log_dir / name`, a new one for each `open`; older ones are not changed. A row
    is one event with all its values, which is with the operating system when the call returns, so
    that it outlives the process. (tensorboardX provides the classes of the messages.)

    Steps are exact up to 64 bits; values are float32, which is all that the format has. NaN and
    infinities are written as they are. Hyperparameters are under "HParams", beside those of other
    runs, and in a table under "Text", as are the facts of the run (launcher, devices, versions,
    commit). A metric that has its `_min` and `_max` beside it, as `episode/return` has, or its
    `/member_min` and `/member_max`, is drawn in its band under "Custom Scalars". Videos are
    animated images under "Images", at up to 50 frames a second.

    Args:
        log_dir: folder in which each run has its own, or its URL in a bucket.

    Example:
        ```python
        with Logger(TensorBoardBackend("logs"), "curves") as logger:
            logger.log({"train": {"loss": 0.5}}, step=0)
        print(list(Path("logs/curves").glob("*tfevents*")))  # see it: tensorboard --logdir logs
        ```
    """

    replay_name = "tensorboard"
    replay_files = ("*tfevents*",)

    def __init__(self, log_dir: str | Path = "logs") -> None:
        self._log_dir = folder_of(log_dir)
        self._run_dir: Path | None = None
        self._file: EventFile | None = None
        self._row_events: dict[tuple[str, ...], RowEvents] = {}
        self._started = 0.0
        self._texts: dict[str, str] = {}
        self._session_start: Any = None
        self._bands: list[tuple[str, str, str]] = []

    @property
    def log_dir(self) -> Path:
        """Local folder in which each run has its own."""
        return self._log_dir

    @classmethod
    def for_replay(cls, log_dir: Path | None, *, project: str | None) -> Self:
        return cls() if log_dir is None else cls(log_dir)

    @classmethod
    def check_setup(cls, timeout: float) -> list[SetupProblem]:
        """Whether the packages that it needs can be imported."""
        try:
            as_records([version_event(0.0)])
        except Exception as error:  # An import can fail in any way, e.g. by protobuf's check.
            what = f"process 0 cannot use TensorBoard ({one_line(error)})"
            fix = (
                "run `pip install tensorboardX crc32c` there; without them `TensorBoardBackend` "
                "is disabled in a run"
            )
            return [SetupProblem("problem", what, fix)]
        return []

    def open(self, name: str) -> None:
        if self._run_dir is not None:
            raise already_open(self, name)
        # Absolute: the program may change its folder.
        run_dir = (self._log_dir / name).resolve()
        run_dir.mkdir(parents=True, exist_ok=True)
        self._file = EventFile(run_dir)
        self._run_dir = run_dir
        self._started = time.time()
        self._texts, self._session_start = {}, None
        # Metrics that are logged again in this run need their bands again.
        self._bands, self._row_events = [], {}

    def on_run(self, facts: dict[str, Any]) -> None:
        """Write the facts of the run, as a text `run`."""
        self._started = facts.get("time") or self._started
        self._write_text("run", run_markdown(facts))

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self._write_text("hparams", markdown_table(hparams))
        if hparams:
            self._session_start = session_start_event(hparams, self._started, time.time())
            self._write_session(self._session_start)

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
        """Write rows, all of them or none, each an event at its own time."""
        row_events = self._row_events.get(names)
        if row_events is None:
            # First: if it fails, the bands are written with the next row that has these metrics.
            self._write_bands(names)
            if len(self._row_events) >= _MAX_ROW_EVENTS:
                self._row_events.clear()
            row_events = self._row_events[names] = RowEvents(names)
        self._write(row_events.records(values, steps, times))

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        gif = encode_gif(frames, fps)
        self._write(as_records([video_event(tag, gif, np.shape(frames), step, time.time())]))

    def on_resume(self, start_step: int) -> None:
        """Hide what older files contain at this step or after it; TensorBoard purges it."""
        now = time.time()
        # Twice: TensorBoard takes the first of a run for its start, and purges nothing then.
        events = [resume_event(start_step, now)] * 2
        if start_step <= 0:
            # Texts and layout are at step 0, and are purged with the rest.
            events += [text_event(*text, now) for text in self._texts.items()]
            if self._bands:
                events.append(layout_event(self._bands, now))
        self._write(as_records(events))

    def on_end(self, state: str) -> None:
        """Write how the run ended, for the HParams tab; it lists runs with hyperparameters only."""
        if self._session_start is not None:
            self._write_session(self._session_start, session_end_event(state, time.time()))

    def close(self) -> None:
        file, self._file, self._run_dir, self._session_start = self._file, None, None, None
        if file is not None:
            file.close()

    def _write_bands(self, tags: tuple[str, ...]) -> None:
        new = [band for band in find_bands(tags) if band not in self._bands]
        if new:
            self._write(as_records([layout_event([*self._bands, *new], time.time())]))
            self._bands += new

    def _write_text(self, tag: str, markdown: str) -> None:
        self._texts[tag] = markdown
        self._write(as_records([text_event(tag, markdown, time.time())]))

    def _write_session(self, *events: Any) -> None:
        if self._run_dir is None:
            raise not_open(self)
        records = as_records([version_event(events[0].wall_time), *events])
        replace_file(self._run_dir / _SESSION_FILE, lambda file: file.write(records))

    def _write(self, records: bytes) -> None:
        if self._run_dir is None:
            raise not_open(self)
        # Stored again once it has the records: a file that failed is not used again.
        file, self._file = self._file or EventFile(self._run_dir), None
        file.append(records)
        self._file = file
