"""TensorBoard's event messages, built but not written. Each takes the wall time as an argument."""

import struct
from collections.abc import Iterable, Mapping
from typing import Any


def text_event(tag: str, markdown: str, now: float) -> Any:
    """A text summary at step 0.

    Args:
        tag: what it goes by.
        markdown: the text.
        now: wall time in seconds.
    """
    from tensorboardX.summary import text

    Event, _ = _messages()
    return Event(wall_time=now, step=0, summary=text(tag, markdown))


def video_event(tag: str, gif: bytes, shape: tuple[int, ...], step: int, now: float) -> Any:
    """A clip as an image summary, which TensorBoard plays.

    Args:
        tag: metric name of the video.
        gif: the encoded clip.
        shape: shape of its frames, `(T, H, W, C)`.
        step: global step.
        now: wall time in seconds.
    """
    Event, Summary = _messages()
    _, height, width, channels = shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=gif)
    return Event(
        wall_time=now, step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])
    )


def resume_event(start_step: int, now: float) -> Any:
    """An event that makes TensorBoard forget what stands before it, from a step on.

    Args:
        start_step: the step.
        now: wall time in seconds.
    """
    from tensorboardX.proto.event_pb2 import (
        SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
    )

    Event, _ = _messages()
    start = SessionLog(status=SessionLog.START)
    return Event(wall_time=now, step=start_step, session_log=start)


def version_event(now: float) -> Any:
    """What an event file begins with.

    Args:
        now: wall time in seconds.
    """
    Event, _ = _messages()
    return Event(wall_time=now, file_version="brain.Event:2")


def as_records(events: Iterable[Any]) -> bytes:
    """Events as they stand in a file, see `RowRecord`."""
    from tensorboardX.record_writer import masked_crc32c

    parts: list[bytes] = []
    for event in events:
        message = event.SerializeToString()
        length = struct.pack("<Q", len(message))
        for part in (length, message):
            parts += [part, struct.pack("<I", masked_crc32c(part))]
    return b"".join(parts)


def markdown_table(hparams: Mapping[str, Any]) -> str:
    """Names and values as a table in Markdown."""
    rows = [f"|{_cell(name)}|{_cell(value)}|" for name, value in hparams.items()]
    return "\n".join(["|name|value|", "|-|-|", *rows])


def _messages() -> tuple[Any, Any]:
    """The classes `Event` and `Summary`."""
    # Protobuf makes them while it is imported, where no type checker sees them.
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import (
        Summary,  # pyright: ignore[reportAttributeAccessIssue]
    )

    return Event, Summary


def _cell(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("\r", "").replace("\n", "<br>")
