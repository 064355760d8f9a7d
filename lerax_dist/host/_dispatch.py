"""Which call of a backend a record of the journal is. Pure, but for frames, which are in files."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lerax_dist.backends import takes_batches
from lerax_dist.host._clip_file import load_clip
from lerax_dist.journal._record import Event, Record, Row

# Numbers that are handed on at once, at most: 4 MiB.
_MOST_AT_ONCE = 1 << 19

Call = tuple[str, tuple[Any, ...]]


def together(records: Sequence[Record], backend: Any) -> Iterator[list[Record]]:
    """The records in their order, with rows that the backend takes in one call as one list."""
    if not takes_batches(backend):
        yield from ([record] for record in records)
        return
    for names, group in itertools.groupby(records, key=_names):
        if names is None:
            yield from ([record] for record in group)
            continue
        while batch := list(itertools.islice(group, max(_MOST_AT_ONCE // max(len(names), 1), 1))):
            yield batch


def _names(record: Record) -> tuple[str, ...] | None:
    return record.names if isinstance(record, Row) else None


def rows_call(batch: Sequence[Record], backend: Any) -> Call | None:
    """The one call that hands on what `together` gave, if it is rows that the backend takes so."""
    rows = [record for record in batch if isinstance(record, Row)]
    if not rows or not takes_batches(backend):
        return None
    values = np.stack([row.values for row in rows])
    return "log_rows", (
        rows[0].names,
        values,
        [row.step for row in rows],
        [row.time for row in rows],
    )


def call_of(record: Record, backend: Any, run_dir: Path) -> Call | None:
    """Name of a method of the backend and its arguments.

    Args:
        record: what the journal holds.
        backend: who is to hear of it; methods that are optional are asked for.
        run_dir: folder of the run, where the files of its clips are.

    Returns:
        The call; `None` if the record is none of the backend's business.

    Raises:
        OSError: the file of a clip cannot be read.
        ValueError: it does not hold what the journal says.
    """
    match record:
        case Row():
            return "log_scalars", (record.metrics, record.step)
        case Event(kind="hparams"):
            return "log_hparams", (dict(record.body["hparams"]),)
        case Event(kind="open") if hasattr(backend, "on_run"):
            return "on_run", ({**record.body, "time": record.time},)
        case Event(kind="close") if hasattr(backend, "on_end"):
            return "on_end", (str(record.body["state"]),)
        case Event(kind="resume") if hasattr(backend, "on_resume"):
            return "on_resume", (record.body["start_step"],)
        case Event(kind="start") if hasattr(backend, "on_training_start"):
            body = record.body
            return "on_training_start", (body["total_timesteps"], body["total_iterations"])
        case Event(kind="video"):
            body = record.body
            frames = load_clip(run_dir / body["file"], body["shape"][0], body["fps"])
            return "log_video", (body["tag"], frames, body["step"], body["fps"])
    return None
