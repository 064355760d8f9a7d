"""TensorBoard's event files: messages, the records that hold them, the file they are appended to.

An event file is a sequence of TFRecords ("TFRecords format details" in TensorFlow's guide), each
with one `Event` message. tensorboardX has the messages and the checksums; the files and records are
written here. What makes an event takes `now`, its wall time in seconds since the epoch.
"""

import contextlib
import importlib
import itertools
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist.backends._append import Appender
from lerax_dist.backends._base import as_utf8

# How the extremes of a metric are named; the second are those over members.
_BAND_ENDS = ("_", "/member_")
_FILE_NUMBERS = itertools.count()
# The time in the name of an event file, also of one that another writer has made.
_STAMP = re.compile(r"tfevents\.(\d{10})\.")
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
    already hold half of a record, and stops reading a file at the first damaged record.
    """

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        # Readers take files in the order of their names, which begin with a time. The clock does
        # not decide: that of the host which wrote the last file may have been ahead.
        now = time.time()
        found = (_STAMP.search(path.name) for path in run_dir.iterdir())
        stamp = max([int(now), *(int(match[1]) + 1 for match in found if match)])
        unique = f"{socket.gethostname()}.{os.getpid()}.{next(_FILE_NUMBERS)}"
        path = run_dir / f"events.out.tfevents.{stamp:010d}.{unique}"
        path.touch(exist_ok=False)
        self._file = Appender(path)
        self._appends = 0
        self.append(as_records([version_event(now)]))

    def append(self, records: bytes) -> None:
        """Append records; after an `OSError`, none was appended and the file is closed."""
        try:
            self._file.append(records)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            # The first append is that of the version.
            if self._appends < 2:
                with contextlib.suppress(OSError):
                    self._file.path.unlink()
            raise
        self._appends += 1

    def close(self) -> None:
        """Wait for the disk, and close."""
        self._file.close()


@final
class RowEvents:
    """Rows with the same metrics as records: one message, filled in again for each row.

    To build a message of 16 values takes over ten times as long as to fill it in.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        summary = _messages("summary").Summary
        values = [summary.Value(tag=as_utf8(tag), simple_value=0.0) for tag in tags]
        self._event = _messages("event").Event(summary=summary(value=values))
        self._slots = tuple(self._event.summary.value)
        self._as_record = _record_maker()

    def records(self, values: np.ndarray, steps: Sequence[int], times: Sequence[float]) -> bytes:
        """The records of rows, `values` of shape `(rows, tags)`, one after the other, as float32.

        A step that does not fit into 64 bits is a `ValueError`.
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
    return _event(now, file_version="brain.Event:2")


def text_event(tag: str, markdown: str, now: float) -> Any:
    """A text summary at step 0, in Markdown."""
    from tensorboardX.summary import text

    return _event(now, summary=text(tag, as_utf8(markdown)))


def video_event(tag: str, gif: bytes, shape: tuple[int, ...], step: int, now: float) -> Any:
    """A clip of frames of shape `(T, H, W, C)` as an image summary, which TensorBoard plays."""
    summary = _messages("summary").Summary
    _, height, width, channels = shape
    image = summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=gif)
    return _event(now, step, summary=summary(value=[summary.Value(tag=as_utf8(tag), image=image)]))


def resume_event(start_step: int, now: float) -> Any:
    """An event that makes TensorBoard purge earlier events at `start_step` or after it."""
    session = _messages("event").SessionLog
    return _event(now, start_step, session_log=session(status=session.START))


def find_bands(tags: Iterable[str]) -> list[tuple[str, str, str]]:
    """Metrics with their minimum and maximum beside them, over environments or over members."""
    there = dict.fromkeys(tags)
    both = [(tag, f"{tag}{end}min", f"{tag}{end}max") for tag in there for end in _BAND_ENDS]
    return [band for band in both if band[1] in there and band[2] in there]


def layout_event(bands: Sequence[tuple[str, str, str]], now: float) -> Any:
    """The event that puts a chart for each band into "Custom Scalars"; the last of a run counts."""
    from tensorboardX.summary import custom_scalars

    layout: dict[str, dict[str, Any]] = {}
    for band in bands:
        tag, lowest, highest = map(as_utf8, band)
        prefix, slash, _ = tag.partition("/")
        over = " over members" if lowest.startswith(tag + _BAND_ENDS[1]) else ""
        charts = layout.setdefault(prefix if slash else "metrics", {})
        charts[f"{tag}: mean, minimum, maximum{over}"] = ["Margin", [tag, lowest, highest]]
    return _event(now, summary=custom_scalars(layout))


def session_start_event(hparams: Mapping[str, Any], started: float, now: float) -> Any:
    """The event that makes a run a session of the HParams tab.

    What is not a finite number, a string or a boolean becomes its text.
    """
    info = _messages("plugin_hparams").SessionStartInfo(start_time_secs=started)
    for name, value in hparams.items():
        key = as_utf8(name)
        match value:
            case bool():
                info.hparams[key].bool_value = value
            # NaN compares with nothing, and an integer may be too large for `math.isfinite`.
            case int() | float() if abs(value) <= sys.float_info.max:
                info.hparams[key].number_value = value
            case _:
                info.hparams[key].string_value = as_utf8(str(value))
    return _hparams_event("session_start_info", info, now)


def session_end_event(state: str, now: float) -> Any:
    """The event that ends a session, with the state of the run."""
    status = _messages("api").Status.Value(_STATUS.get(state, "STATUS_UNKNOWN"))
    info = _messages("plugin_hparams").SessionEndInfo(status=status, end_time_secs=now)
    return _hparams_event("session_end_info", info, now)


def _hparams_event(kind: str, info: Any, now: float) -> Any:
    data = _messages("plugin_hparams").HParamsPluginData(version=0, **{kind: info})
    summary = _messages("summary")
    plugin = summary.SummaryMetadata.PluginData(
        plugin_name="hparams", content=data.SerializeToString()
    )
    metadata = summary.SummaryMetadata(plugin_data=plugin)
    value = summary.Summary.Value(tag=f"_hparams_/{kind}", metadata=metadata)
    return _event(now, summary=summary.Summary(value=[value]))


def _event(now: float, step: int = 0, **content: Any) -> Any:
    return _messages("event").Event(wall_time=now, step=step, **content)


def _messages(name: str) -> Any:
    """A module of tensorboardX's message classes.

    Protobuf makes the classes while the module is imported, where no type checker sees them. A
    process that does not write must not load tensorboardX.
    """
    return importlib.import_module(f"tensorboardX.proto.{name}_pb2")


def _record_maker() -> Callable[[bytes], bytes]:
    """What makes a record of a message: length and message, each with its checksum behind it."""
    from tensorboardX.record_writer import masked_crc32c  # isort: skip

    # Without it tensorboardX computes checksums in Python, which takes 15 times as long.
    import crc32c  # noqa: F401 (an error here if it is missing)  # isort: skip

    pack_length, pack_checksum = struct.Struct("<Q").pack, struct.Struct("<I").pack

    def as_record(message: bytes) -> bytes:
        length = pack_length(len(message))
        checksums = pack_checksum(masked_crc32c(length)), pack_checksum(masked_crc32c(message))
        return b"".join((length, checksums[0], message, checksums[1]))

    return as_record
