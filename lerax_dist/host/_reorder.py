"""Messages become rows in their order: parts are joined, rows sorted by number. No thread."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import Schema, Totals
from lerax_dist.host._sink import HostRow, Packet

# How long a row waits for an earlier one that is missing, in seconds.
REORDER_TIMEOUT = 1.0
# How many rows wait for a missing one. With one callback an iteration none was ever seen out of
# order; rows released early are written all the same, only not in their place.
MAX_HELD = 64
# Rows of training and of evaluation alternate; more layouts than this are names made of data.
_MAX_HOST_SCHEMAS = 32
_NOTHING = np.zeros(0)


class PartialRow(NamedTuple):
    """A row of this process, which may still merge with those of other processes.

    Attributes:
        schema: what its totals mean.
        totals: its numbers.
        number: number of its iteration, or its step in a plain loop.
        time: when it came, in seconds since the epoch.
        clock: when it came, by a monotonic clock; `None` in a plain loop, whose pace is unknown.
        last: number of the last row in the same message.
        size: bytes that it took in the queue.
    """

    schema: Schema
    totals: Totals
    number: int
    time: float
    clock: float | None
    last: int
    size: int


class ReorderBuffer(NamedTuple):
    """Rows that came too early. JAX does not order unordered callbacks, so rows are sorted by
    their sequence numbers. Immutable.

    Attributes:
        due: number of the next row; `None` before the first.
        stride: distance between numbers.
        held: number to row.
    """

    due: int | None = None
    stride: int = 1
    held: dict[int, Any] = {}

    def follow(self, numbers: list[int]) -> "ReorderBuffer | None":
        """The buffer after rows with these numbers, if they are just the next ones; else `None`."""
        if self.held or (self.due is not None and self.due != numbers[0]):
            return None
        after = numbers[0] + len(numbers) * self.stride
        if list(range(numbers[0], after, self.stride)) != numbers:
            return None
        return ReorderBuffer(after, self.stride)

    def arrive(self, number: int, row: Any) -> "tuple[ReorderBuffer, list[Any]]":
        """A row arrives: the new buffer, and the rows that are due now, in order."""
        if self.due is None or number == self.due:
            ready = [row]
            due, held = number + self.stride, self.held
            if due in held:
                held = dict(held)
                while due in held:
                    ready.append(held.pop(due))
                    due += self.stride
            return self._replace(due=due, held=held), ready
        if number < self.due:
            # Late, or a loop that counts from 0 again. Either way it is written.
            return self, [row]
        later = self._replace(held={**self.held, number: row})
        return later.release() if len(later.held) > MAX_HELD else (later, [])

    def release(self) -> "tuple[ReorderBuffer, list[Any]]":
        """Wait no longer: all rows held, in order. Their distance is the stride from now on."""
        if not self.held:
            return self, []
        assert self.due is not None
        numbers = sorted(self.held)
        before = numbers[-2] if len(numbers) > 1 else self.due - self.stride
        stride = max(numbers[-1] - before, 1)
        ready = [self.held[number] for number in numbers]
        return ReorderBuffer(due=numbers[-1] + stride, stride=stride), ready


@final
class Reassembler:
    """Joins the parts of messages and puts rows into their order."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._order = ReorderBuffer()
        self._held_since = 0.0
        self._parts: dict[tuple[int, int], dict[int, Packet]] = {}
        self._host_schemas: dict[tuple[str, ...], Schema] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a row waits for an earlier one."""
        return bool(self._order.held)

    def overdue(self, now: float) -> list[PartialRow]:
        """Rows that have waited for an earlier one for too long, given `time.monotonic()`."""
        if self.is_waiting and now - self._held_since > REORDER_TIMEOUT:
            return self.release()
        return []

    def restart(self, stride: int) -> list[PartialRow]:
        """A training starts, whose numbers may begin anywhere: the rows that are held."""
        # Incomplete messages belong to the training before.
        self._parts.clear()
        ready = self.release()
        self._order = ReorderBuffer(stride=stride)
        return ready

    def release(self) -> list[PartialRow]:
        """All rows that are held."""
        self._order, ready = self._order.release()
        return ready

    def add_packets(self, packets: Sequence[Packet]) -> list[PartialRow]:
        """Parts of messages come: the rows that are due now."""
        if self._order.due is None:
            self._order = self._order._replace(stride=packets[0].stride)
        messages = [parts for packet in packets if (parts := self._joined(packet))]
        ready: list[PartialRow] = []
        for _, alike in itertools.groupby(messages, key=_kind):
            rows = _read_messages(list(alike))
            after = self._order.follow([row.number for row in rows])
            if after is not None:
                self._order = after
                ready += rows
                continue
            for row in rows:
                was_waiting = self.is_waiting
                self._order, due = self._order.arrive(row.number, row)
                if self.is_waiting and not was_waiting:
                    self._held_since = time.monotonic()
                ready += due
        return ready

    def _joined(self, packet: Packet) -> list[Packet]:
        """All parts of the message that this one completes; empty if it does not."""
        if packet.parts == 1:
            return [packet]
        message = id(packet.schema), int(packet.payload[0])
        received = self._parts.setdefault(message, {})
        received[packet.part] = packet
        if len(received) < packet.parts:
            return []
        del self._parts[message]
        return [received[part] for part in range(packet.parts)]

    def add_host_row(self, row: HostRow, size: int) -> PartialRow:
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
        totals = Totals(1, values, _NOTHING, _NOTHING, row.step)
        return PartialRow(
            self._host_schema(names), totals, row.step, row.time, None, row.step, size
        )

    def _read(self, names: tuple[str, ...], array: Any) -> np.ndarray | None:
        """Values from the devices, as float64; on this thread, not on the training's."""
        try:
            return np.asarray(array).astype(np.float64)
        except Exception as error:
            missing = ", ".join(names)
            self._failures.record("writer", f"{missing} could not be read ({error!r})", error)
            return None

    def _host_schema(self, names: tuple[str, ...]) -> Schema:
        """One schema for all rows with these names: rows of one schema are finished at once."""
        if names not in self._host_schemas:
            if len(self._host_schemas) >= _MAX_HOST_SCHEMAS:
                self._host_schemas.clear()
            self._host_schemas[names] = Schema(names, sums_steps=False)
        return self._host_schemas[names]


def group_packets(taken: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    """What came from the queue, with consecutive packets as one list of them.

    Many are read in little more time than one.
    """
    for is_packet, group in itertools.groupby(taken, key=lambda both: isinstance(both[0], Packet)):
        if is_packet:
            packets, sizes = zip(*group, strict=True)
            yield list(packets), sum(sizes)
        else:
            yield from group


def _kind(parts: list[Packet]) -> tuple[int, int]:
    return id(parts[0].schema), len(parts)


def _read_messages(messages: list[list[Packet]]) -> list[PartialRow]:
    """The rows of messages that have one schema and one number of parts."""
    # A part has the same length in all of them.
    bodies = [
        np.stack([part.payload[1:] for part in parts]) for parts in zip(*messages, strict=True)
    ]
    rows: list[PartialRow] = []
    schema = messages[0][0].schema
    read = schema.messages(np.concatenate(bodies, axis=1))
    for parts, numbered in zip(messages, read, strict=True):
        size = sum(part.payload.nbytes for part in parts)
        sizes = [size // len(numbered)] * len(numbered)
        sizes[0] += size - sum(sizes)
        first, last = parts[0], numbered[-1][0]
        rows += (
            PartialRow(schema, totals, number, first.time, first.clock, last, own)
            for (number, totals), own in zip(numbered, sizes, strict=True)
        )
    return rows
