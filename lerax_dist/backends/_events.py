"""TensorBoard's event messages, built but not written. Each takes the wall time as an argument."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np


@final
class RowEvent:
    """One event message for all rows with the same tags: refilling costs a tenth of rebuilding.

    Attributes:
        tags: metric names, in order.

    Args:
        tags: metric names, in order.
    """

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags
        self._event: Any = None
        self._values: list[Any] = []

    def fill(self, scalars: Mapping[str, np.ndarray], step: int, now: float) -> Any:
        """The message with these values; good until the next call.

        Args:
            scalars: a value for each of `tags`, in their order.
            step: global step.
            now: wall time in seconds.
        """
        if self._event is None:
            Event, Summary = _messages()
            values = [Summary.Value(tag=tag, simple_value=0.0) for tag in self.tags]
            self._event = Event(summary=Summary(value=values))
            self._values = list(self._event.summary.value)
        for message, value in zip(self._values, scalars.values(), strict=True):
            message.simple_value = float(value)
        self._event.wall_time = now
        self._event.step = step
        return self._event


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
    """An event that makes TensorBoard forget what older files hold from a step on.

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
