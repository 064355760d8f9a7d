"""Rows as JSON Lines, for pandas, jq and any other tool."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final
from urllib.parse import quote

import numpy as np

from lerax_dist.backends._append import Appender, FileRemoved
from lerax_dist.backends._base import (
    AbstractLoggingBackend,
    already_open,
    not_open,
    rename_reserved,
)
from lerax_dist.backends._video import encode_gif
from lerax_dist.journal import replace_file
from lerax_dist.journal._bucket import folder_of

# Types that orjson writes as Python does, in a tenth of the time.
_FAST_TYPES = {float, np.float64, list}


@final
class JSONLBackend(AbstractLoggingBackend):
    """Logging backend that appends one JSON object a row to `<log_dir>/<name>/metrics.jsonl`.

    A row is `{"step":12,"train/loss":0.5}`. Each row is with the operating system when the call
    returns, so that it outlives the process. Every line is valid JSON: NaN is `null`, and
    infinities are `1e999` and `-1e999`, numbers that parse to infinity. A metric that is itself
    called `step` is written as `metrics/step`. Metrics whose values are vectors follow in a line of
    their own with the same step, as lists.

    A line without `step` marks that the run was resumed: after `{"resume":6}`, the rows above it at
    step 6 or later are superseded. The short way to the rows that count is `lerax_dist.read_run`,
    which reads the journal beside this file. The second example reads this file alone, for
    `pandas.DataFrame(rows)` and the like. Keep all rows of a step: one may be of training and one
    of evaluation.

    Hyperparameters are in `hparams.json` and videos in `videos/<tag>/<step>.gif` beside it.

    Args:
        log_dir: folder in which each run has its own, or its URL in a bucket.

    Example:
        ```python
        with Logger(JSONLBackend("logs"), "known") as logger:
            logger.log({"train": {"loss": 0.5}}, step=12)
        print(Path("logs/known/metrics.jsonl").read_text())  # {"step":12,"train/loss":0.5}
        ```

        ```python
        import json

        rows = []
        with open("logs/known/metrics.jsonl", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # A damaged line.
                if "step" in row:
                    rows.append(row)
                else:
                    rows = [earlier for earlier in rows if earlier["step"] < row["resume"]]
        ```
    """

    replay_name = "jsonl"
    replay_files = ("metrics.jsonl",)

    def __init__(self, log_dir: str | Path = "logs") -> None:
        self._log_dir = folder_of(log_dir)
        self._lines: Appender | None = None
        self._run_dir = self._log_dir

    @property
    def log_dir(self) -> Path:
        """Local folder in which each run has its own."""
        return self._log_dir

    @classmethod
    def for_replay(cls, log_dir: Path | None, *, project: str | None) -> Self:
        return cls() if log_dir is None else cls(log_dir)

    def open(self, name: str) -> None:
        if self._lines is not None:
            raise already_open(self, name)
        # Absolute: the program may change its folder.
        self._run_dir = (self._log_dir / name).resolve()
        self._open_lines()

    def _open_lines(self) -> None:
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._lines = Appender.for_lines(self._run_dir / "metrics.jsonl")

    def on_resume(self, start_step: int) -> None:
        """Mark the rows above that are superseded."""
        self._append([f'{{"resume":{int(start_step)}}}'])

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        if self._lines is None:
            raise not_open(self)
        path = self._run_dir / "hparams.json"
        _replace(path, (json_value(hparams) + "\n").encode())

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        self._append([json_row(scalars, step)])

    def log_rows(
        self,
        names: tuple[str, ...],
        values: np.ndarray,
        steps: Sequence[int],
        times: Sequence[float],
    ) -> None:
        """Write rows, all of them or none. Their times are not written."""
        rows = (dict(zip(names, row, strict=True)) for row in values.tolist())
        self._append(map(json_row, rows, steps))

    def log_vectors(self, vectors: dict[str, np.ndarray], step: int) -> None:
        """Write vectors as lists, in a separate line."""
        self._append([json_row({tag: vector.tolist() for tag, vector in vectors.items()}, step)])

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        if self._lines is None:
            raise not_open(self)
        path = video_path(self._run_dir / "videos", tag, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, encode_gif(frames, fps))

    def close(self) -> None:
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.close()

    def _append(self, lines: Iterable[str]) -> None:
        if self._lines is None:
            raise not_open(self)
        try:
            self._lines.append("".join(f"{line}\n" for line in lines).encode())
        except FileRemoved:
            # For the next attempt.
            self._lines.close()
            self._open_lines()
            raise


def json_row(scalars: Mapping[str, Any], step: int) -> str:
    """One row as a JSON object on one line."""
    if "step" not in scalars and _FAST_TYPES.issuperset(map(type, scalars.values())):
        # Inside: a process that does not write must not load orjson.
        import orjson

        with contextlib.suppress(TypeError):  # E.g. a step of more than 64 bits.
            fields = {"step": int(step), **scalars}
            text = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            if "null" not in text:  # What JSON lacks.
                return text
    fields = [f'"step":{int(step)}']
    for name, value in rename_reserved(["step"], scalars).items():
        fields.append(f"{json.dumps(name)}:{json_value(value)}")
    return "{" + ",".join(fields) + "}"


def json_value(value: Any) -> str:
    """A value as valid JSON: `null` for NaN, `1e999` for infinity, text for what JSON lacks."""
    # Also NumPy's float64, which is a float, but whose `repr` is not a number in JSON.
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(float(value))
        return "null" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    if isinstance(value, (np.generic, np.ndarray)):
        return json_value(value.item() if value.size == 1 else value.tolist())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_value, value)) + "]"
    if isinstance(value, dict):
        fields = (f"{json.dumps(str(key))}: {json_value(item)}" for key, item in value.items())
        return "{" + ", ".join(fields) + "}"
    return json.dumps(value, default=str)


def video_path(folder: Path, tag: str, step: int) -> Path:
    """File of a clip: below `folder` for any tag, and a different one for different tags."""
    parts = [quote(part, safe=" ") or "%" for part in tag.split("/")]
    # `quote` leaves dots alone, and "." and ".." would lead out of the folder.
    parts = [part if part.strip(".") else part.replace(".", "%2E") for part in parts]
    return folder.joinpath(*parts) / f"{step:012d}.gif"


def _replace(path: Path, content: bytes) -> None:
    replace_file(path, lambda file: file.write(content))
