"""Which call of a backend a record of the journal is. Pure, but for frames, which are in files."""

from pathlib import Path
from typing import Any

from lerax_dist.host._clip_file import load_clip
from lerax_dist.host._record import Event, Record, Row


def call_of(record: Record, backend: Any, run_dir: Path) -> tuple[str, tuple[Any, ...]] | None:
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
            return "log_scalars", (dict(record.metrics), record.step)
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
