"""Readers of what the backends and the journal have written, as users would open it."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from lerax_dist import RunState
from lerax_dist.journal._record import Event, Row, decode


def decoded(line: bytes) -> tuple[int, Any]:
    """Number and record of a line of a journal, which must be whole."""
    both = decode(line)
    assert both is not None, line
    return both


def journal_records(run_dir: Path) -> list[Any]:
    """Every record of a journal; a damaged line fails."""
    lines = (run_dir / "journal.jsonl").read_bytes().splitlines(keepends=True)
    records = [decoded(line) for line in lines]
    assert [number for number, _ in records] == list(range(len(records)))
    return [record for _, record in records]


def journal_rows(run_dir: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and metrics of every row of a journal, in its order, without the logger's own."""
    return [(row.step, without_gauges(row.metrics)) for row in journal_row_records(run_dir)]


def journal_row_records(run_dir: Path) -> list[Row]:
    """Every row of a journal as it is kept, in its order."""
    return [record for record in journal_records(run_dir) if isinstance(record, Row)]


def journal_steps(run_dir: Path) -> list[int]:
    """Step of every row of a journal, in its order."""
    return [row.step for row in journal_row_records(run_dir)]


def without_gauges(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the logger says about itself, once in 10 s: on a busy machine in any run."""
    return {name: value for name, value in metrics.items() if not name.startswith("lerax_dist/")}


def current_rows(records: list[Any]) -> list[Row]:
    """The rows of a journal that no later incarnation has superseded."""
    rows: list[tuple[int, Row]] = []
    for number, record in enumerate(records):
        if isinstance(record, Row):
            rows.append((number, record))
        elif isinstance(record, Event) and record.kind == "resume":
            since = record.body.get("since", 0)
            rows = [
                (n, row) for n, row in rows if n < since or not _is_superseded(row, record.body)
            ]
    return [row for _, row in rows]


def _is_superseded(row: Row, resume: dict[str, Any]) -> bool:
    starts = resume.get("metrics")
    if starts is None:
        return row.step >= resume["start_step"]
    names = {*row.names, *row.vectors}
    return names <= starts.keys() and row.step >= max(starts[name] for name in names)


def start_step_of(state: RunState) -> int | None:
    """Where a state says that its run is to go on."""
    upper, lower = (int(half) for half in np.asarray(state.start_step))
    step = (upper << 32) + lower
    return None if step == 2**64 - 1 else step


def event_rows(run_dir: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and scalars of every event of the one event file with rows in a folder."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    (path,) = run_dir.glob("*tfevents*[!s]")  # the other ends in "hparams"
    rows = []
    for event in LegacyEventFileLoader(str(path)).Load():
        values = {v.tag: v.simple_value for v in event.summary.value if v.HasField("simple_value")}
        if values:
            rows.append((event.step, without_gauges(values)))
    return rows


def event_images(run_dir: Path) -> list[tuple[str, int, np.ndarray]]:
    """Tag, step and frames (T, H, W, C) of every animation in the one event file of a folder.

    A frame that is shown for twice the time counts as two, as its encoder has joined equal ones.
    """
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    (path,) = run_dir.glob("*tfevents*[!s]")
    return [
        (value.tag, event.step, gif_frames(value.image.encoded_image_string))
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.HasField("image")
    ]


def clip_frames(path: Path) -> np.ndarray:
    """The frames of a clip that the logger keeps, whose neighbors differ."""
    with Image.open(path) as image:
        return np.stack([np.array(each) for each in ImageSequence.Iterator(image)])


def gif_frames(gif: bytes) -> np.ndarray:
    """The frames of a GIF of constant speed, each as often as it is shown."""
    frames, times = [], []
    with Image.open(io.BytesIO(gif)) as image:
        for frame in ImageSequence.Iterator(image):
            frames.append(np.array(frame.convert("RGB")))
            times.append(image.info["duration"])
    return np.repeat(np.stack(frames), np.array(times) // min(times), axis=0)


def shown_by_tensorboard(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each tag as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    shown.Reload()
    tags = shown.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in shown.Scalars(tag)] for tag in tags}


def kept_by_jsonl(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each metric, as the documentation of `JSONLBackend` reads them."""
    rows = []
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "step" in row:
            rows.append(row)
        else:
            rows = [earlier for earlier in rows if earlier["step"] < row["resume"]]
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and not name.startswith("lerax_dist/"):
                curves.setdefault(name, []).append((row["step"], value))
    return curves
