"""Messages become rows: parts are put together, rows brought into their order. No thread."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist.host import _order
from lerax_dist.host._failures import Failures
from lerax_dist.host._sink import Format, HostRow, Packet

# How long a row may wait for one before it that has not come.
PATIENCE = 1.0


class Share(NamedTuple):
    """A row as this process knows it; in `scope="process"` the others have shares of it, too.

    Attributes:
        format: how its totals are merged and finished.
        totals: its numbers.
        number: number of its iteration, or its step in a plain loop.
        time: when it came, in seconds since the epoch.
        clock: likewise, of a monotonic clock; `None` in a plain loop, whose pace is not measured.
        last: number of the last row that came in the same message.
        size: bytes that it took in the queue.
    """

    format: Format
    totals: Any
    number: int
    time: float
    clock: float | None
    last: int
    size: int


@final
class Assembler:
    """Rows from the devices in their order."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._order = _order.Order()
        self._held_since = 0.0
        self._parts: dict[int, dict[int, Packet]] = {}

    @property
    def holds(self) -> bool:
        """Whether a row waits for one before it."""
        return bool(self._order.held)

    def overdue(self) -> bool:
        """Whether a row has waited long enough for one before it."""
        return self.holds and time.monotonic() - self._held_since > PATIENCE

    def restart(self, stride: int) -> list[Share]:
        """A training starts, whose numbers grow by `stride`: the rows that are held."""
        self._order, ready = _order.restart(self._order, stride)
        return ready

    def release(self) -> list[Share]:
        """All rows that are held."""
        self._order, ready = _order.release(self._order)
        return ready

    def packets(self, packets: Sequence[Packet]) -> list[Share]:
        """Parts of messages come: the rows that are due now."""
        if self._order.due is None:
            self._order = self._order._replace(stride=packets[0].stride)
        messages = [parts for packet in packets if (parts := self._message(packet))]
        ready: list[Share] = []
        for _, alike in itertools.groupby(messages, key=_kind):
            for share in _shares(list(alike)):
                held_before = self.holds
                self._order, due = _order.arrive(self._order, share.number, share)
                if self.holds and not held_before:
                    self._held_since = time.monotonic()
                ready += due
        return ready

    def _message(self, packet: Packet) -> list[Packet]:
        """All parts of the message that this one makes whole; none if it does not."""
        if packet.parts == 1:
            return [packet]
        number = int(packet.payload[0])
        waiting = self._parts.setdefault(number, {})
        waiting[packet.part] = packet
        if len(waiting) < packet.parts:
            return []
        del self._parts[number]
        return [waiting[part] for part in range(packet.parts)]

    def host_row(self, row: HostRow, size: int) -> Share:
        """A row of a plain loop; waits for the devices that compute its values."""
        values: dict[str, Any] = dict.fromkeys(row.names)
        values |= row.numbers
        for names, array in row.arrays:
            try:
                # Here and not on the training thread.
                values |= zip(names, np.asarray(array).astype(np.float64), strict=True)
            except Exception as error:
                missing = ", ".join(names)
                self._failures.keep("writer", f"{missing} could not be read ({error!r})", error)
        known = {name: value for name, value in values.items() if value is not None}
        totals = np.fromiter(known.values(), np.float64, len(known))
        row_format = PlainFormat(tuple(known), row.step)
        return Share(row_format, totals, row.step, row.time, None, row.step, size)


def together(taken: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    """What came from the queue, with packets that follow one another as one list of them.

    Many are read in little more time than one.
    """
    for is_packet, group in itertools.groupby(taken, key=lambda both: isinstance(both[0], Packet)):
        if is_packet:
            packets, sizes = zip(*group, strict=True)
            yield list(packets), sum(sizes)
        else:
            yield from group


def _kind(parts: list[Packet]) -> tuple[int, int]:
    return id(parts[0].format), len(parts)


def _shares(messages: list[list[Packet]]) -> list[Share]:
    """The rows of messages of one kind."""
    bodies = [np.concatenate([part.payload[1:] for part in parts]) for parts in messages]
    shares: list[Share] = []
    for parts, rows in zip(messages, messages[0][0].format.rows(np.stack(bodies)), strict=True):
        size = sum(part.payload.nbytes for part in parts)
        sizes = [size // len(rows)] * len(rows)
        sizes[0] += size - sum(sizes)
        shares += (
            Share(parts[0].format, totals, number, parts[0].time, parts[0].clock, rows[-1][0], own)
            for (number, totals), own in zip(rows, sizes, strict=True)
        )
    return shares


@final
class PlainFormat:
    """Rows of a plain loop: numbers by name. Between processes their mean counts."""

    def __init__(self, names: tuple[str, ...], step: int) -> None:
        self.names = names
        self._step = step

    def combine(self, shares: Sequence[np.ndarray]) -> np.ndarray:
        """The mean."""
        return np.mean(shares, axis=0)

    def finish(self, rows: Sequence[np.ndarray]) -> list[tuple[int | None, dict[str, Any]]]:
        """Step and metrics."""
        return [(self._step, dict(zip(self.names, row, strict=True))) for row in rows]
