"""From messages to rows: parts are joined, rows put in order and finished. No thread.

`Reassembler` makes partial rows, which may still merge with those of other processes; of these
`RowFinisher` makes rows with their times and pace, without what has no value.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import RowBatch, Schema, Totals
from lerax_dist.host._queue import HostRow, Packet
from lerax_dist.host._steps import RowSteps
from lerax_dist.journal import Row

# How long a row waits for an earlier one that is missing, in seconds.
REORDER_TIMEOUT = 1.0
# How many rows wait for a missing one. With one callback an iteration none was ever seen out of
# order; rows released early are written all the same, only not in their place.
MAX_HELD = 64
# Rows of training and of evaluation alternate; more layouts than this are names made of data.
_MAX_HOST_SCHEMAS = 32
# Metrics of the pace: global steps a second, and seconds an iteration.
PACE_NAMES = ("time/steps_per_second", "time/iteration_seconds")


class PartialRow(NamedTuple):
    """A row of this process, which may still merge with those of other processes.

    Attributes:
        schema: what its totals mean.
        totals: its numbers.
        number: number of its iteration, or its step in a plain loop and of `emit`.
        time: when it arrived, in seconds since the epoch.
        clock: when it arrived, by a monotonic clock; `None` if it is no iteration, whose pace is
            unknown.
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
    """Rows that arrived too early. JAX does not order unordered callbacks, so rows are sorted by
    their sequence numbers. Immutable.

    Attributes:
        due: number of the next row; `None` before the first.
        stride: distance between numbers.
        held: number to its rows: a program may log several in one iteration.
    """

    due: int | None = None
    stride: int = 1
    held: dict[int, list[Any]] = {}

    def follow(self, numbers: list[int]) -> "ReorderBuffer | None":
        """The buffer after these rows, if they are just the next ones; else `None`."""
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
                    ready += held.pop(due)
                    due += self.stride
            return self._replace(due=due, held=held), ready
        if number < self.due:
            # Late, or a loop that counts from 0 again. Either way it is written.
            return self, [row]
        later = self._replace(held={**self.held, number: [*self.held.get(number, []), row]})
        is_full = sum(map(len, later.held.values())) > MAX_HELD
        return later.release() if is_full else (later, [])

    def release(self) -> "tuple[ReorderBuffer, list[Any]]":
        """Wait no longer: all rows held, in order. Their distance is the stride from now on."""
        if not self.held:
            return self, []
        assert self.due is not None
        numbers = sorted(self.held)
        before = numbers[-2] if len(numbers) > 1 else self.due - self.stride
        stride = max(numbers[-1] - before, 1)
        ready = [row for number in numbers for row in self.held[number]]
        return ReorderBuffer(due=numbers[-1] + stride, stride=stride), ready


@final
@dataclass(slots=True)
class _Lane:
    """Rows of `emit` with the same names.

    Attributes:
        held: step to row.
        seen: highest step that was here at the last look at the queue.
        last: highest step that was given.
    """

    held: dict[int, PartialRow] = field(default_factory=dict)
    seen: int = -1
    last: int = -1

    def take(self, highest: float) -> list[PartialRow]:
        """The rows with steps up to `highest`, in order."""
        steps = sorted(step for step in self.held if step <= highest)
        self.last = max([self.last, *steps])
        return [self.held.pop(step) for step in steps]


@final
class StepSorter:
    """Puts rows of `emit` in the order of their steps, those with the same names among themselves.

    Unordered callbacks of one program may overtake one another, but nothing tells which step comes
    next, so no row waits for another: each stays here until the queue has been looked at again. A
    step that is here already, or is not above those written just before, begins anew (a program
    that counts from 0 again, or emits a step twice): all that is here goes first.
    """

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, ...], _Lane] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a row is here."""
        return bool(self._lanes)

    def add(self, row: PartialRow) -> list[PartialRow]:
        """A row arrives; the rows that must be written before it."""
        lane = self._lanes.setdefault(row.schema.names, _Lane())
        ready: list[PartialRow] = []
        if row.number in lane.held or row.number <= lane.last:
            ready = lane.take(math.inf)
            self._lanes[row.schema.names] = lane = _Lane()
        lane.held[row.number] = row
        return ready

    def look(self) -> list[PartialRow]:
        """The queue has been looked at again: the rows that were here before, and those below."""
        ready: list[PartialRow] = []
        for names, lane in list(self._lanes.items()):
            ready += lane.take(lane.seen)
            lane.seen = max(lane.held, default=-1)
            if not lane.held:
                del self._lanes[names]
        return ready

    def release(self) -> list[PartialRow]:
        """All rows."""
        lanes, self._lanes = self._lanes, {}
        return [row for lane in lanes.values() for row in lane.take(math.inf)]


@final
class Reassembler:
    """Joins the parts of messages and puts rows in order. Its methods return what is due now.

    `discard` takes the size of each part that never becomes a row.
    """

    def __init__(self, failures: Failures, discard: Callable[[int], None]) -> None:
        self._failures = failures
        self._discard = discard
        self._order = ReorderBuffer()
        self._emitted = StepSorter()
        self._held_since = 0.0
        self._parts: dict[tuple[int, int], dict[int, Packet]] = {}
        self._host_schemas: dict[Schema, Schema] = {}

    @property
    def next_look_in(self) -> float | None:
        """Seconds until `overdue` must be called if nothing arrives; `None` if no row waits."""
        if self._emitted.is_waiting:
            return 0.0  # Behind the pause of the queue.
        return REORDER_TIMEOUT if self._order.held else None

    def overdue(self, now: float) -> list[PartialRow]:
        """Rows that have waited long enough for an earlier one; `now` is `time.monotonic()`."""
        ready = self._emitted.look()
        if self._order.held and now - self._held_since > REORDER_TIMEOUT:
            self._order, late = self._order.release()
            ready += late
        return ready

    def restart(self, stride: int) -> list[PartialRow]:
        """A training starts, whose numbers may begin anywhere."""
        # Incomplete messages belong to the training before.
        for received in self._parts.values():
            self._discard(sum(packet.payload.nbytes for packet in received.values()))
        self._parts.clear()
        ready = self.release()
        self._order = ReorderBuffer(stride=stride)
        return ready

    def release(self) -> list[PartialRow]:
        """All rows that are held."""
        self._order, ready = self._order.release()
        return ready + self._emitted.release()

    def add_packets(self, packets: Sequence[Packet]) -> list[PartialRow]:
        """Add parts of messages."""
        messages = [parts for packet in packets if (parts := self._joined(packet))]
        ready: list[PartialRow] = []
        for _, group in itertools.groupby(messages, key=_kind):
            alike = list(group)
            first, rows = alike[0][0], _read_messages(alike)
            if first.schema.unit is not None:
                for row in rows:
                    ready += self._emitted.add(row)
                continue
            if self._order.due is None:
                self._order = self._order._replace(stride=first.stride)
            after = self._order.follow([row.number for row in rows])
            if after is not None:
                self._order = after
                ready += rows
                continue
            for row in rows:
                was_waiting = bool(self._order.held)
                self._order, due = self._order.arrive(row.number, row)
                if self._order.held and not was_waiting:
                    self._held_since = time.monotonic()
                ready += due
        return ready

    def _joined(self, packet: Packet) -> list[Packet]:
        """All parts of the message that this one completes; empty if it does not."""
        if packet.parts == 1:
            return [packet]
        message = id(packet.schema), int(packet.payload[0])
        received = self._parts.setdefault(message, {})
        if packet.part in received:
            # A loop that counts from 0 again, after a message that was cut off.
            self._discard(received[packet.part].payload.nbytes)
        received[packet.part] = packet
        if len(received) < packet.parts:
            return []
        del self._parts[message]
        return [received[part] for part in range(packet.parts)]

    def add_host_row(self, row: HostRow, size: int) -> PartialRow:
        """A row of a plain loop; waits for the devices that compute its values."""
        schema, (slots, numbers), arrays = row.metrics
        vector = np.zeros(schema.size)
        vector[slots] = numbers
        missing: set[str] = set()
        for slots, gates, array in arrays:
            try:
                # On this thread, not on the training's.
                found = np.asarray(array).astype(np.float64).ravel()
            except Exception as error:
                owners = schema.owners()
                names = dict.fromkeys(owners[slot] for slot in slots)
                what = f"{', '.join(names)} could not be read ({error!r})"
                self._failures.record("writer", what, error)
                missing.update(names)
                continue
            vector[slots] = found[: len(slots)]
            if gates:
                vector[gates] = found[len(slots) : len(slots) + len(gates)] <= 0
        if missing:
            vector = vector[[name not in missing for name in schema.owners()]]
            schema = schema.without(missing)
        # One schema for all rows with these names: rows of one schema are finished at once.
        if schema not in self._host_schemas and len(self._host_schemas) >= _MAX_HOST_SCHEMAS:
            self._host_schemas.clear()
        schema = self._host_schemas.setdefault(schema, schema)
        plain, sums, _, maxima = schema.split(vector)
        totals = Totals(1, plain, sums, maxima, row.step)
        return PartialRow(schema, totals, row.step, row.time, None, row.step, size)


def group_packets(taken: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    """What came from the queue, consecutive packets as one list: they are read at once."""
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
        clock = first.clock
        if schema.unit is not None:
            # Rows of `emit` are numbered by their steps, and are no iterations.
            clock, numbered = None, [(totals.step or 0, totals) for _, totals in numbered]
        rows += (
            PartialRow(schema, totals, number, first.time, clock, last, own)
            for (number, totals), own in zip(numbered, sizes, strict=True)
        )
    return rows


class Pace(NamedTuple):
    """The last row, by which the pace of the next is known. Immutable.

    Attributes:
        clock: when it was done, in seconds of a monotonic clock; `None` before the first.
        step: its global step; `None` if unknown.
        iteration: its iteration.
    """

    clock: float | None = None
    step: int | None = None
    iteration: int = 0

    @staticmethod
    def start(clock: float, iteration: int) -> "Pace":
        """Training starts after `iteration` iterations; a fresh one starts at step 0."""
        return Pace(clock, 0 if iteration == 0 else None, iteration)

    def advance(
        self, clock: float, step: int, iteration: int, last: int
    ) -> "tuple[Pace, float, float]":
        """The pace after a row, and the values of `PACE_NAMES`: NaN if there is nothing to compare.

        The row came at `clock`, in one message with those up to the iteration `last`. They are
        spread evenly over the time since the row before them: more cannot be known without a
        callback for each.
        """
        steps_per_second = iteration_seconds = math.nan
        if self.clock is None or clock <= self.clock:
            return Pace(clock, step, iteration), steps_per_second, iteration_seconds
        if last > self.iteration:
            fraction = (iteration - self.iteration) / (last - self.iteration)
            clock = self.clock + (clock - self.clock) * min(max(fraction, 0.0), 1.0)
        if clock > self.clock and iteration > self.iteration:
            seconds = clock - self.clock
            if self.step is not None and step >= self.step:
                steps_per_second = (step - self.step) / seconds
            iteration_seconds = seconds / (iteration - self.iteration)
        return Pace(clock, step, iteration), steps_per_second, iteration_seconds


@final
class RowFinisher:
    """Makes rows of merged totals, many at once, with their times and the pace of the run."""

    def __init__(self, failures: Failures, steps: RowSteps) -> None:
        self._failures = failures
        self._steps = steps
        self._pace = Pace()

    def start(self, clock: float, iteration: int) -> None:
        """A training starts after `iteration` iterations, at `clock` of a monotonic clock."""
        self._pace = Pace.start(clock, iteration)
        self._steps.start(iteration)

    def rows(self, partials: Sequence[PartialRow]) -> list[Row]:
        """The rows of partial rows that have one schema, in their order."""
        batch = partials[0].schema.finish([row.totals for row in partials])
        own_steps = batch.steps
        # Of rows of iterations.
        numbers = None if partials[0].clock is None else [row.number for row in partials]
        batch = batch._replace(steps=self._steps.place(own_steps, numbers))
        self._check(batch)
        times: list[float] = [row.time for row in partials]
        iterations: list[int | None] = [None] * len(partials)
        names, values, absent = batch.names, batch.values, batch.absent
        if numbers is not None:
            iterations = [*numbers]
            # Of each row: the values of `PACE_NAMES`, and how long before its message it was done.
            pace = np.zeros((len(partials), len(PACE_NAMES) + 1))
            for i, (row, step) in enumerate(zip(partials, own_steps, strict=True)):
                assert row.clock is not None
                after = self._pace.advance(row.clock, step, row.number, row.last)
                self._pace, steps_per_second, iteration_seconds = after
                assert self._pace.clock is not None
                steps_per_second *= row.totals.members
                pace[i] = steps_per_second, iteration_seconds, row.clock - self._pace.clock
            times = (times - pace[:, -1]).tolist()
            missing = np.isnan(pace[:, :-1])
            for column, name in enumerate(PACE_NAMES):
                # A metric of the user's with such a name yields to ours.
                if name in names:
                    absent[:, names.index(name)] |= ~missing[:, column]
            absent = np.hstack([absent, missing])
            names, values = names + PACE_NAMES, np.hstack([values, pace[:, :-1]])
        heads = zip(times, batch.steps, iterations, strict=True)
        scalars = zip(heads, _present(names, values, absent), strict=True)
        if not batch.vectors:
            return [Row(*head, *both) for head, both in scalars]
        return [
            Row(*head, *both, _present_vectors(batch, i)) for i, (head, both) in enumerate(scalars)
        ]

    def _check(self, batch: RowBatch) -> None:
        """Report partials that failed, and the first value that is not finite."""
        for name, error in batch.failed.items():
            what = f"`finish` of {name!r} failed ({error!r}); rows are written without it"
            self._failures.record("metrics", what, kind=name)
        bad = ~(np.isfinite(batch.values) | batch.absent)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            self._failures.record(
                "metrics",
                f"{batch.names[column]!r} is {batch.values[row, column]} at step "
                f"{batch.steps[row]}, the first value that is not finite",
                kind="not finite",
            )
            return
        for name, values in batch.vectors.items():
            # A number of a vector may lack a value, such as the mean of an empty bin; all do not.
            bad = np.isnan(values).all(axis=1) & ~batch.absent_vectors[name]
            if bad.any():
                self._failures.record(
                    "metrics",
                    f"{name!r} is nan throughout at step {batch.steps[bad.argmax()]}, the first "
                    "value that is not finite",
                    kind="not finite",
                )
                return


def _present(
    names: tuple[str, ...], values: np.ndarray, absent: np.ndarray
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Names and values of each row, without those that are absent."""
    if (absent == absent[0]).all():
        names = tuple(itertools.compress(names, ~absent[0]))
        yield from ((names, row) for row in values[:, ~absent[0]])
        return
    known: dict[bytes, tuple[str, ...]] = {}
    for row, gaps in zip(values, absent, strict=True):
        key = gaps.tobytes()
        if key not in known:
            known[key] = tuple(itertools.compress(names, ~gaps))
        yield known[key], row[~gaps]


def _present_vectors(batch: RowBatch, row: int) -> dict[str, np.ndarray]:
    return {
        name: values[row]
        for name, values in batch.vectors.items()
        if not batch.absent_vectors[name][row]
    }
