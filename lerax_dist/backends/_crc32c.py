"""Checksums of records that differ in a few bytes only. Pure.

CRC-32C is linear: what a byte adds to the checksum depends on its value and on how many bytes
follow it, and on no other byte. So the checksum of a record that is made from a template is that
of the template, XORed with one table entry for each byte that differs from zero.
"""

from collections.abc import Callable
from typing import final

import numpy as np

Checksum = Callable[[bytes | bytearray | memoryview], int]


def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))
    return table.astype(np.uint32)


_TABLE = _byte_table()


@final
class PatchedChecksum:
    """The checksum of a template for whatever bytes are put into its open places.

    Args:
        template: the message, with zero in each open place.
        places: the open places, ascending.
    """

    def __init__(self, template: bytes, places: np.ndarray) -> None:
        self._base = crc32c(template)
        self._shares = np.empty((len(places), 256), np.uint32)
        self._rows = np.arange(len(places)) * 256
        # From the end to the front: what one byte adds, with one more byte behind it each time.
        share = _TABLE
        end = len(template) - 1
        for row in range(len(places) - 1, -1, -1):
            for _ in range(end - int(places[row])):
                share = _one_zero_more(share)
            end = int(places[row])
            self._shares[row] = share

    def of(self, content: np.ndarray) -> np.ndarray:
        """The checksum of each message with these bytes in the open places, `(messages,)` of int64.

        Args:
            content: `(messages, places)` of `uint8`, in the order of the places.
        """
        shares = self._shares.ravel().take(self._rows + content)
        return self._base ^ np.bitwise_xor.reduce(shares, axis=1).astype(np.int64)


def crc32c(data: bytes) -> int:
    """CRC-32C of a message, a byte at a time: slow, for what happens once."""
    table, register = _TABLE.tolist(), 0xFFFFFFFF
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked(checksums: np.ndarray) -> np.ndarray:
    """Checksums, in int64, as record files hold them."""
    return (((checksums >> 15) | (checksums << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _one_zero_more(share: np.ndarray) -> np.ndarray:
    return _TABLE[share & 0xFF] ^ (share >> 8)
