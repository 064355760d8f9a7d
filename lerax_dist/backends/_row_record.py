"""Rows as records of an event file, made by filling in the numbers of a template. Pure.

A record is the length of its message, the checksum of the length, the message and its checksum. The
message is TensorBoard's `Event` with a `Summary` of simple values: written out by hand here, for
then the places of the numbers are known, and a row costs no more than copying them there.
"""

import struct
from collections.abc import Sequence
from typing import final

import numpy as np

from lerax_dist.backends._crc32c import Checksum, PatchedChecksum, crc32c, masked

# Bytes of a record before its message and after it.
HEAD, TAIL = 12, 4
# Field numbers and wire types of `Event` (wall_time 1, step 2, summary 5), `Summary` (value 1) and
# `Value` (tag 1, simple_value 2).
_WALL_TIME, _STEP, _SUMMARY = b"\x09", b"\x10", b"\x2a"
_VALUE, _TAG, _SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"


@final
class RowRecord:
    """The record of any row with the same tags and a step that takes as many bytes.

    Args:
        tags: metric names, in order.
        step_size: bytes of the step, see `encode_step`.
        checksum: computes CRC-32C in little time; `None` if nothing does, then it is put together
            from tables (see `PatchedChecksum`).
    """

    def __init__(self, tags: tuple[str, ...], step_size: int, checksum: Checksum | None) -> None:
        message, places = _template(tags, step_size)
        length = struct.pack("<Q", len(message))
        head = length + masked(np.array([crc32c(length)], np.int64)).astype("<u4").tobytes()
        self._template = np.frombuffer(head + message + bytes(TAIL), np.uint8)
        self._places = places + HEAD
        self._checksum = checksum
        self._patched = PatchedChecksum(message, places) if checksum is None else None

    def fill(
        self, values: np.ndarray, steps: Sequence[bytes], times: Sequence[float]
    ) -> np.ndarray:
        """The records of rows, `(rows, length)` bytes.

        Args:
            values: `(rows, tags)`, in the order of the tags.
            steps: what `encode_step` makes of each step.
            times: wall times in seconds.
        """
        rows = len(steps)
        with np.errstate(over="ignore"):
            # Beyond the range of float32 there is infinity, as everywhere.
            floats = values.astype("<f4", order="C")
        heads = b"".join(map(bytes.__add__, map(struct.Struct("<d").pack, times), steps))
        content = np.empty((rows, len(self._places)), np.uint8)
        content[:, : len(heads) // rows] = np.frombuffer(heads, np.uint8).reshape(rows, -1)
        content[:, len(heads) // rows :] = floats.view(np.uint8)
        records = np.empty((rows, len(self._template)), np.uint8)
        records[:] = self._template
        records[:, self._places] = content
        checksums = masked(self._checksums(records[:, HEAD:-TAIL], content))
        records[:, -TAIL:] = checksums.astype("<u4")[:, None].view(np.uint8)
        return records

    def _checksums(self, messages: np.ndarray, content: np.ndarray) -> np.ndarray:
        if self._patched is not None:
            return self._patched.of(content)
        assert self._checksum is not None
        return np.array([self._checksum(message.data) for message in messages], np.int64)


def encode_step(step: int) -> bytes:
    """A step as a number of variable length: 7 bits a byte, the lowest first."""
    return _varint(step & 0xFFFF_FFFF_FFFF_FFFF)


def _template(tags: tuple[str, ...], step_size: int) -> tuple[bytes, np.ndarray]:
    """The message with zero in each open place, and the open places: time, step, values."""
    values = []
    for tag in tags:
        name = tag.encode()
        body = _TAG + _varint(len(name)) + name + _SIMPLE_VALUE + bytes(4)
        values.append(_VALUE + _varint(len(body)) + body)
    summary = b"".join(values)
    head = _WALL_TIME + bytes(8) + _STEP + bytes(step_size) + _SUMMARY + _varint(len(summary))
    ends = len(head) + np.cumsum([len(value) for value in values], dtype=np.intp)
    floats = (ends[:, None] + np.arange(-4, 0)).ravel()
    time_and_step = np.r_[1:9, 10 : 10 + step_size]
    return head + summary, np.concatenate([time_and_step, floats])


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
