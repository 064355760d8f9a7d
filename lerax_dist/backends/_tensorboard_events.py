"""TensorBoard's event files: messages, the records that hold them, the file they are appended to.

An event file is a sequence of TFRecords, each with one `Event` message `m`:

    record(m) = n || mask(crc32c(n)) || m || mask(crc32c(m)),   n = the length of m as uint64
    mask(c)   = (((c >> 15) | (c << 17)) + 0xA282EAD8) mod 2^32

with all numbers little-endian and checksums of 32 bits. Source: "TFRecords format details" in
TensorFlow's guide, and `kMaskDelta` in its `tsl/lib/hash/crc32c.h`: the mask keeps a checksum apart
from that of data which contain checksums themselves.

tensorboardX's protobuf classes make the messages; the files and records are written here. What
makes an event takes `now`, its wall time in seconds since the epoch.
"""

import contextlib
import itertools
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist.backends._append import Appender

_MASK_DELTA = 0xA282EAD8
_FILE_NUMBERS = itertools.count()
_STATUS = {
    "finished": "STATUS_SUCCESS",
    "failed": "STATUS_FAILURE",
    "interrupted": "STATUS_FAILURE",
    # It neither failed nor reached its end: another job resumes it.
    "preempted": "STATUS_UNKNOWN",
}


@final
class EventFile:
    """A new event file of a run.

    Records are with the operating system when `append` returns. If writing some fails half way
    (the disk is full), the file is closed for good: it ends with its last whole record, and is
    removed if it has none. Retry with another file, which TensorBoard reads next: a reader may
    already hold half of a record, and gives up a file at the first record that is damaged.

    Args:
        run_dir: folder of the run.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        # Readers take files in the order of their names, which tensorboardX makes of whole second
        # and host; so the part that makes it unique has to sort by time.
        now = time.time_ns()
        unique = f"{now:020d}.{os.getpid()}.{next(_FILE_NUMBERS)}"
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{unique}"
        self._file = Appender.for_new_file(run_dir / name)
        self._has_records = False
        self._append(as_records([version_event(now / 1e9)]))

    def append(self, records: bytes) -> None:
        """Append records, all of them or none.

        Args:
            records: one after the other.

        Raises:
            OSError: they cannot be written; the file is closed.
        """
        self._append(records)
        self._has_records = True

    def close(self) -> None:
        """Wait for the disk, and close.

        Raises:
            OSError: something is not on the disk.
        """
        self._file.close()

    def _append(self, records: bytes) -> None:
        try:
            self._file.append(records)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            if not self._has_records:
                with contextlib.suppress(OSError):
                    self._file.path.unlink()
            raise


@final
class RowEvents:
    """Rows with the same metrics as records: one message, filled in again for each row.

    To build a message of 16 values takes over ten times as long as to fill it in.

    Args:
        tags: metric names, in order.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        Event, Summary = _messages()
        values = [Summary.Value(tag=tag, simple_value=0.0) for tag in tags]
        self._event = Event(summary=Summary(value=values))
        self._slots = tuple(self._event.summary.value)
        self._as_record = _record_maker()

    def records(self, values: np.ndarray, steps: Sequence[int], times: Sequence[float]) -> bytes:
        """The records of rows, one after the other.

        Args:
            values: `(rows, tags)`, in the order of the tags; written as float32.
            steps: global step of each row.
            times: wall time of each row in seconds.

        Raises:
            ValueError: a step does not fit into 64 bits.
        """
        event, slots, as_record = self._event, self._slots, self._as_record
        records = []
        for row, step, now in zip(values.tolist(), steps, times, strict=True):
            event.wall_time, event.step = now, step
            for slot, value in zip(slots, row, strict=True):
                slot.simple_value = value
            records.append(as_record(event.SerializeToString()))
        return b"".join(records)


def as_records(events: Iterable[Any]) -> bytes:
    """Events as they are stored in a file, one after the other."""
    as_record = _record_maker()
    return b"".join(as_record(event.SerializeToString()) for event in events)


def version_event(now: float) -> Any:
    """The event that every event file starts with."""
    Event, _ = _messages()
    return Event(wall_time=now, file_version="brain.Event:2")


def text_event(tag: str, markdown: str, now: float) -> Any:
    """A text summary at step 0, in Markdown."""
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
    """
    Event, Summary = _messages()
    _, height, width, channels = shape
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=gif)
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    return Event(wall_time=now, step=step, summary=summary)


def resume_event(start_step: int, now: float) -> Any:
    """An event that makes TensorBoard purge earlier events at `start_step` or after it."""
    from tensorboardX.proto.event_pb2 import (
        SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
    )

    Event, _ = _messages()
    start = SessionLog(status=SessionLog.START)
    return Event(wall_time=now, step=start_step, session_log=start)


def find_bands(tags: Iterable[str]) -> list[str]:
    """Metrics that have a minimum and a maximum beside them, e.g. `episode/return`.

    Args:
        tags: metric names; `x_min` and `x_max` are the band of `x`.
    """
    there = dict.fromkeys(tags)
    return [tag for tag in there if f"{tag}_min" in there and f"{tag}_max" in there]


def layout_event(bands: Sequence[str], now: float) -> Any:
    """The event that puts a chart for each band into "Custom Scalars"; the last of a run counts.

    Args:
        bands: metrics, see `find_bands`.
    """
    from tensorboardX.summary import custom_scalars

    Event, _ = _messages()
    layout: dict[str, dict[str, Any]] = {}
    for tag in bands:
        prefix, slash, _ = tag.partition("/")
        title = f"{tag}: mean, minimum, maximum"
        charts = layout.setdefault(prefix if slash else "metrics", {})
        charts[title] = ["Margin", [tag, f"{tag}_min", f"{tag}_max"]]
    return Event(wall_time=now, step=0, summary=custom_scalars(layout))


def session_start_event(hparams: Mapping[str, Any], started: float, now: float) -> Any:
    """The event that makes a run a session of the HParams tab.

    Args:
        hparams: its hyperparameters; what is not a finite number, a string or a boolean becomes
            its text.
        started: when it was started, in seconds since the epoch.
    """
    from tensorboardX.proto.plugin_hparams_pb2 import (
        SessionStartInfo,  # pyright: ignore[reportAttributeAccessIssue]
    )

    info = SessionStartInfo(start_time_secs=started)
    for key, value in hparams.items():
        match value:
            case bool():
                info.hparams[key].bool_value = value
            case int() | float() if math.isfinite(value):
                info.hparams[key].number_value = value
            case _:
                info.hparams[key].string_value = str(value)
    return _hparams_event("session_start_info", info, now)


def session_end_event(state: str, now: float) -> Any:
    """The event that ends a session, with the state of the run."""
    from tensorboardX.proto.api_pb2 import Status  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.plugin_hparams_pb2 import (
        SessionEndInfo,  # pyright: ignore[reportAttributeAccessIssue]
    )

    status = Status.Value(_STATUS.get(state, "STATUS_UNKNOWN"))
    info = SessionEndInfo(status=status, end_time_secs=now)
    return _hparams_event("session_end_info", info, now)


def _hparams_event(kind: str, info: Any, now: float) -> Any:
    from tensorboardX.proto.plugin_hparams_pb2 import (
        HParamsPluginData,  # pyright: ignore[reportAttributeAccessIssue]
    )
    from tensorboardX.proto.summary_pb2 import (
        SummaryMetadata,  # pyright: ignore[reportAttributeAccessIssue]
    )

    Event, Summary = _messages()
    data = HParamsPluginData(version=0, **{kind: info}).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    value = Summary.Value(tag=f"_hparams_/{kind}", metadata=SummaryMetadata(plugin_data=plugin))
    return Event(wall_time=now, step=0, summary=Summary(value=[value]))


def _messages() -> tuple[Any, Any]:
    """The classes `Event` and `Summary`."""
    # Inside: a process that does not write must not load tensorboardX. Protobuf makes the classes
    # while it is imported, where no type checker sees them.
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.summary_pb2 import (
        Summary,  # pyright: ignore[reportAttributeAccessIssue]
    )

    return Event, Summary


def _record_maker() -> Callable[[bytes], bytes]:
    """What makes a record of a message, see the formula above."""
    # First tensorboardX, which tells crc32c not to warn where the processor has no instruction.
    import tensorboardX.crc32c  # noqa: F401  # isort: skip
    from crc32c import crc32c

    pack_length, pack_checksum = struct.Struct("<Q").pack, struct.Struct("<I").pack

    def mask(checksum: int) -> bytes:
        turned = (checksum >> 15) | (checksum << 17)
        return pack_checksum((turned + _MASK_DELTA) & 0xFFFFFFFF)

    def as_record(message: bytes) -> bytes:
        length = pack_length(len(message))
        return b"".join((length, mask(crc32c(length)), message, mask(crc32c(message))))

    return as_record
