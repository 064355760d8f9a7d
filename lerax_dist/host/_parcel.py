"""Shares of rows as JSON values, on their way from another process to process 0. Pure."""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist.host._assemble import Share


class Theirs(NamedTuple):
    """A share of another process.

    Attributes:
        number: see `Share`.
        names: names of what it logs.
        totals: its numbers, as the formats of process 0 take them.
    """

    number: int
    names: tuple[str, ...]
    totals: Any


@final
class Packer:
    """Makes messages of shares; names travel once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], int] = {}

    def pack(self, shares: Sequence[Share]) -> dict[str, Any]:
        """A message with shares, in their order; see `sent`."""
        known = dict(self._known)
        rows = [
            [
                share.number,
                known.setdefault(share.format.names, len(known)),
                _text(share.totals),
            ]
            for share in shares
        ]
        return {"names": list(known)[len(self._known) :], "rows": rows}

    def sent(self, message: dict[str, Any]) -> None:
        """The message has left, so the names in it are known from now on."""
        for names in message["names"]:
            self._known[names] = len(self._known)


@final
class Unpacker:
    """Makes shares of the messages of one process."""

    def __init__(self) -> None:
        self._known: list[tuple[str, ...]] = []

    def unpack(self, message: dict[str, Any]) -> list[Theirs]:
        """The shares in a message, in their order."""
        self._known += [tuple(names) for names in message["names"]]
        return [
            Theirs(number, self._known[place], _totals(value))
            for number, place, value in message["rows"]
        ]


def _text(value: Any) -> Any:
    """Totals as JSON: arrays as base64 of their float64, tuples as lists."""
    if isinstance(value, np.ndarray):
        return base64.b64encode(value.astype("<f8").tobytes()).decode()
    if isinstance(value, tuple):
        return [_text(each) for each in value]
    return value


def _totals(value: Any) -> Any:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f8")
    if isinstance(value, list):
        return tuple(_totals(each) for each in value)
    return value
