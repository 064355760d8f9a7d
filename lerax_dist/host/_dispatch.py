"""Which call of a backend a record of the journal is. Pure."""

from typing import Any

from lerax_dist.host._record import Event, Record, Row


def call_of(record: Record, backend: Any) -> tuple[str, tuple[Any, ...]] | None:
    """Name of a method of the backend and its arguments.

    Args:
        record: what the journal holds.
        backend: who is to hear of it; methods that are optional are asked for.

    Returns:
        The call; `None` if the record is none of the backend's business.
    """
    match record:
        case Row():
            return "log_scalars", (dict(record.metrics), record.step)
        case Event(kind="open") if hasattr(backend, "on_run"):
            return "on_run", (dict(record.body),)
        case Event(kind="hparams"):
            return "log_hparams", (dict(record.body["hparams"]),)
        case Event(kind="resume") if hasattr(backend, "on_resume"):
            return "on_resume", (record.body["start_step"],)
        case Event(kind="start") if hasattr(backend, "on_training_start"):
            body = record.body
            return "on_training_start", (body["total_timesteps"], body["total_iterations"])
    return None
