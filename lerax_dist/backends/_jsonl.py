"""Rows as JSON Lines, for pandas, jq and whatever comes next."""

import contextlib
import json
import math
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

import numpy as np

from lerax_dist.backends._appender import LineAppender
from lerax_dist.backends._base import AbstractLoggingBackend, already_open, not_open
from lerax_dist.backends._gif import encode_gif

# What orjson writes as Python does, in a tenth of the time.
_QUICK = {float, np.float64}


@final
class JSONLBackend(AbstractLoggingBackend):
    """Logging backend that appends one JSON object a row to `<log_dir>/<name>/metrics.jsonl`.

    A row is `{"step":12,"train/loss":0.5}`; `pandas.read_json(path, lines=True)` reads the file.
    After a resume a step may come twice; then the later row counts
    (`rows.drop_duplicates("step", keep="last")`).

    Each row is handed to the operating system before the call returns, so that it outlives the
    process. Every line is valid JSON: NaN is `null`, and infinities are `1e999` and `-1e999`,
    numbers that parse to infinity. A metric that is itself called `step` goes by `metrics/step`.

    Hyperparameters go to `hparams.json` and videos to `videos/<tag>/<step>.gif` beside it.

    Attributes:
        log_dir: folder in which each run has its own.

    Args:
        log_dir: folder in which each run has its own.

    Example:
        ```python
        with Logger(JSONLBackend("logs"), "known") as logger:
            logger.log({"train": {"loss": 0.5}}, step=12)
        print(Path("logs/known/metrics.jsonl").read_text())  # {"step":12,"train/loss":0.5}
        ```
    """

    def __init__(self, log_dir: str | Path = "logs") -> None:
        self._log_dir = Path(log_dir)
        self._rows: LineAppender | None = None
        self._run_dir = self._log_dir

    @property
    def log_dir(self) -> Path:
        return self._log_dir

    def open(self, name: str) -> None:
        if self._rows is not None:
            raise already_open(self, name)
        # Absolute: the program may change its folder.
        self._run_dir = (self._log_dir / name).resolve()
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._rows = LineAppender(self._run_dir / "metrics.jsonl")

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        if self._rows is None:
            raise not_open(self)
        path = self._run_dir / "hparams.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        _replace(path, (json_value(known | hparams) + "\n").encode())

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        if self._rows is None:
            raise not_open(self)
        self._rows.append(json_row(scalars, step))

    def log_rows(
        self,
        names: tuple[str, ...],
        values: np.ndarray,
        steps: Sequence[int],
        times: Sequence[float],
    ) -> None:
        """Write rows, all of them or none.

        Args:
            names: see `SupportsRows`.
            values: likewise.
            steps: likewise.
            times: not written.
        """
        if self._rows is None:
            raise not_open(self)
        rows = (dict(zip(names, row, strict=True)) for row in values.tolist())
        self._rows.append("\n".join(map(json_row, rows, steps)))

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        if self._rows is None:
            raise not_open(self)
        path = video_path(self._run_dir / "videos", tag, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, encode_gif(frames, fps))

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None


def json_row(scalars: Mapping[str, Any], step: int) -> str:
    """One row as a JSON object on one line.

    Args:
        scalars: metric name to value.
        step: global step.
    """
    if "step" not in scalars and _QUICK.issuperset(map(type, scalars.values())):
        # Inside: a process that does not write must not load it.
        import orjson

        with contextlib.suppress(TypeError):  # E.g. a step of more than 64 bits.
            fields = {"step": int(step), **scalars}
            text = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            if "null" not in text:  # What JSON lacks.
                return text
    fields = [f'"step":{int(step)}']
    for name, value in scalars.items():
        if name == "step":
            name = _free_name("metrics/step", scalars)
        fields.append(f"{json.dumps(name)}:{json_value(value)}")
    return "{" + ",".join(fields) + "}"


def json_value(value: Any) -> str:
    """A value as valid JSON: `null` for NaN, `1e999` for infinity, text for what JSON lacks."""
    # Also NumPy's float64, which is a float, but whose `repr` is not a number in JSON.
    if isinstance(value, float):
        return _json_float(float(value))
    if isinstance(value, (np.generic, np.ndarray)):
        return json_value(value.item() if value.size == 1 else value.tolist())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_value, value)) + "]"
    if isinstance(value, dict):
        fields = (f"{json.dumps(str(key))}: {json_value(item)}" for key, item in value.items())
        return "{" + ", ".join(fields) + "}"
    return json.dumps(value, default=str)


def _json_float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "null"
    return "1e999" if value > 0 else "-1e999"


def video_path(folder: Path, tag: str, step: int) -> Path:
    """Where a clip goes: below `folder` whatever the tag, and different for different tags."""
    parts = [quote(part, safe=" ") or "%" for part in tag.split("/")]
    # `quote` leaves dots alone, and "." and ".." would lead out of the folder.
    parts = [part if part.strip(".") else part.replace(".", "%2E") for part in parts]
    return folder.joinpath(*parts) / f"{step:012d}.gif"


def _free_name(name: str, taken: Container[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _replace(path: Path, content: bytes) -> None:
    # Written beside and renamed, so that a reader, or a crash, never meets half a file.
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_bytes(content)
    beside.replace(path)
