"""Messages become rows: parts are put together, rows brought into their order. No thread."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.host import _order
from lerax_dist.host._sink import Finished, Format, HostRow, Packet

# How long a row may wait for one before it that has not come.
PATIENCE = 1.0
# Rows of training and of evaluation take turns; more kinds than this would be names made of data.
_MOST_FORMATS = 32


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
        self._parts: dict[tuple[int, int], dict[int, Packet]] = {}
        self._formats: dict[tuple[str, ...], PlainFormat] = {}

    @property
    def holds(self) -> bool:
        """Whether a row waits for one before it."""
        return bool(self._order.held)

    def overdue(self) -> bool:
        """Whether a row has waited long enough for one before it."""
        return self.holds and time.monotonic() - self._held_since > PATIENCE

    def restart(self, stride: int) -> list[Share]:
        """A training starts, whose numbers grow by `stride`: the rows that are held."""
        # What never became whole belongs to the training before.
        self._parts.clear()
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
            shares = _shares(list(alike))
            after = _order.are_due(self._order, [share.number for share in shares])
            if after is not None:
                self._order = after
                ready += shares
                continue
            for share in shares:
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
        message = id(packet.format), int(packet.payload[0])
        waiting = self._parts.setdefault(message, {})
        waiting[packet.part] = packet
        if len(waiting) < packet.parts:
            return []
        del self._parts[message]
        return [waiting[part] for part in range(packet.parts)]

    def host_row(self, row: HostRow, size: int) -> Share:
        """A row of a plain loop; waits for the devices that compute its values."""
        names, numbers, arrays = row.metrics
        found = [(some, self._read(some, array)) for some, array in arrays]
        if len(found) == 1 and found[0][0] == names and found[0][1] is not None:
            values = found[0][1]
        else:
            known: dict[str, Any] = dict.fromkeys(names)
            known |= numbers
            for some, array in found:
                if array is not None:
                    known |= zip(some, array, strict=True)
            known = {name: value for name, value in known.items() if value is not None}
            names, values = tuple(known), np.fromiter(known.values(), np.float64, len(known))
        totals = PlainTotals(row.step, values)
        return Share(self._plain(names), totals, row.step, row.time, None, row.step, size)

    def _read(self, names: tuple[str, ...], array: Any) -> np.ndarray | None:
        """Values from the devices, as float64; here and not on the training thread."""
        try:
            return np.asarray(array).astype(np.float64)
        except Exception as error:
            missing = ", ".join(names)
            self._failures.record("writer", f"{missing} could not be read ({error!r})", error)
            return None

    def _plain(self, names: tuple[str, ...]) -> "PlainFormat":
        """The one format of rows with these names: rows of one format are finished at once."""
        if names not in self._formats:
            if len(self._formats) >= _MOST_FORMATS:
                self._formats.clear()
            self._formats[names] = PlainFormat(names)
        return self._formats[names]


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
    # A part has the same length in all of them.
    bodies = [
        np.stack([part.payload[1:] for part in parts]) for parts in zip(*messages, strict=True)
    ]
    shares: list[Share] = []
    read = messages[0][0].format.rows(np.concatenate(bodies, axis=1))
    for parts, rows in zip(messages, read, strict=True):
        size = sum(part.payload.nbytes for part in parts)
        sizes = [size // len(rows)] * len(rows)
        sizes[0] += size - sum(sizes)
        shares += (
            Share(parts[0].format, totals, number, parts[0].time, parts[0].clock, rows[-1][0], own)
            for (number, totals), own in zip(rows, sizes, strict=True)
        )
    return shares


class PlainTotals(NamedTuple):
    """A row of a plain loop.

    Attributes:
        step: its global step.
        values: `(metrics,)` float64.
    """

    step: int
    values: np.ndarray


@final
class PlainFormat:
    """Rows of a plain loop: numbers by name. Between processes their mean counts."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def combine(self, shares: Sequence[tuple[int, np.ndarray]]) -> PlainTotals:
        """The mean, at the step of the first."""
        return PlainTotals(shares[0][0], np.mean([values for _, values in shares], axis=0))

    def finish(self, rows: Sequence[tuple[int, np.ndarray]]) -> Finished:
        """Nothing is left to do."""
        values = np.stack([values for _, values in rows])
        return self.names, [step for step, _ in rows], values, np.zeros(values.shape, np.bool_)
