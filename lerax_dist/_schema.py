"""What the numbers of a row mean: names, partials, vectors. Without jax; NumPy or `jax.numpy` is
handed in, so the step and the host share every formula.

A row is sent from the devices as one vector:

    plain scalars | sums of partials | limbs of the step | maxima of partials, or slots

All but the maxima are means over devices when they arrive; a sum is its mean times the number of
devices, which the trace knows. What cannot be added up has a slot for each device instead, which is
0 on all others: then the mean brings it as well (see `merge` in `device/_pack.py`).
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple, final

import numpy as np

# A step counter travels as limbs of 8 bits, lowest first: each device sends values up to 1,020,
# whose sum over up to 2**14 devices is exact in float32, also as a mean times that number.
LIMBS = 7
LIMB_BITS = 8
_LIMB_VALUES = np.int64(1) << (LIMB_BITS * np.arange(LIMBS))


class Finished(NamedTuple):
    """The metrics of one merged partial.

    Attributes:
        values: suffix of the metric's name (`""` for the metric itself) to value: a scalar, or a
            vector of fixed length.
        weight: how much went into it. With weight 0 a NaN among the values means that there is no
            value yet, and rows omit it.
    """

    values: Mapping[str, Any]
    weight: Any


# What takes a payload from the devices: `(part, parts, payload)`. The payload is what `np.asarray`
# takes, and is valid only during the call.
HostCallback = Callable[[int, int, Any], None]
# Places in the vector of a `Schema`.
Slots = Sequence[int]
# The metrics of a row from a plain loop, as parts of the vector of a `Schema`: what the vector
# means; numbers and their slots; and arrays that `np.asarray` waits for: slots of their first
# values, slots of counts that are 0 where one of the next values is above 0 and else 1, and the
# array. A tuple, since making an object would be a sixth of what `Logger.log` costs.
HostMetrics = tuple["Schema", tuple[Slots, list[float]], list[tuple[Slots, Slots, Any]]]
# Of sums and maxima and the module to compute with. Vectors have their own axis first, so formulas
# broadcast over any number of rows behind it.
Finish = Callable[[Sequence[Any], Sequence[Any], ModuleType], Finished]
Shift = Callable[[Sequence[Any], Sequence[Any], Sequence[Any], ModuleType], Sequence[Any]]
# How long each number of a partial is: `None` for a scalar, n for a vector of n.
Lengths = tuple[int | None, ...]


class PartialSpec(NamedTuple):
    """One partial of a row.

    Attributes:
        name: name of its metric, without suffixes.
        finish: makes metrics of its merged sums and maxima.
        shift: moves its sums to the point that merged maxima give; `None` if they depend on none.
        sums: length of each sum.
        maxima: length of each maximum.
        devices: over how many devices its sums are summed.
        is_local: whether each process has it for itself; in a row the first ones are.
    """

    name: str
    finish: Finish
    shift: Shift | None
    sums: Lengths
    maxima: Lengths
    devices: int
    is_local: bool = False


class Totals(NamedTuple):
    """A row's numbers on the host, which can still be merged with those of other processes.

    Attributes:
        devices: over how many devices the plain scalars are means.
        plain: plain scalars.
        sums: sums of all partials, one after the other.
        maxima: maxima of all partials, one after the other.
        step: exact number of steps; `None` if the row has none.
        members: how many trainings have done that many steps each.
    """

    devices: int
    plain: np.ndarray
    sums: np.ndarray
    maxima: np.ndarray
    step: int | None
    members: int = 1


class RowBatch(NamedTuple):
    """Finished rows of one schema.

    Attributes:
        names: names of their scalar metrics.
        steps: step of each row.
        values: `(rows, metrics)` float64.
        absent: `(rows, metrics)` bool: which of them have no value.
        vectors: name of each vector metric to `(rows, length)` float64.
        absent_vectors: name of each vector metric to `(rows,)` bool: which rows have no value.
        failed: name of each partial whose `finish` failed, and how.
    """

    names: tuple[str, ...]
    steps: list[int]
    values: np.ndarray
    absent: np.ndarray
    vectors: dict[str, np.ndarray]
    absent_vectors: dict[str, np.ndarray]
    failed: Mapping[str, Exception] = {}


@final
@dataclass(frozen=True)
class Schema:
    """What the numbers of a vector mean. It holds no array and outlives the trace.

    Attributes:
        plain: names of the plain scalars.
        partials: the partials, in their order.
        step_devices: over how many devices the step is summed; `None` if the vector has no step.
        devices: over how many devices everything is reduced.
        dtype: float type of the vector.
        sums_steps: whether the step of a row is the sum over processes; else the largest of them.
        unit: how many steps a count of its step stands for, if `emit` sends it: such rows are known
            by their steps. `None` for rows with a number.
        members: how many members of a `vmap` the vector is of, each with as many steps.
        slots: how many devices have slots in the vector; 0 if it ends with the maxima.
    """

    plain: tuple[str, ...]
    partials: tuple[PartialSpec, ...] = ()
    step_devices: int | None = None
    devices: int = 1
    dtype: np.dtype = np.dtype(np.float64)
    sums_steps: bool = True
    unit: int | None = None
    members: int = 1
    slots: int = 0

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of what is logged, those of partials without their suffixes."""
        return (*self.plain, *(spec.name for spec in self.partials))

    @functools.cached_property
    def local_names(self) -> tuple[str, ...]:
        """Names of the partials that each process has for itself, without their suffixes."""
        return tuple(spec.name for spec in self.partials if spec.is_local)

    @functools.cached_property
    def _ends(self) -> tuple[int, int, int, int]:
        plain = len(self.plain)
        sums = plain + sum(_size(spec.sums) for spec in self.partials)
        limbs = sums + (0 if self.step_devices is None else LIMBS)
        return plain, sums, limbs, limbs + sum(_size(spec.maxima) for spec in self.partials)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self._ends[2] + self.slots * self.slot_size if self.slots else self._ends[3]

    @property
    def slot_size(self) -> int:
        """Numbers in the slot of a device: its shifting sums and its maxima, in parts (see
        `slot_parts`)."""
        maxima = self._ends[3] - self._ends[2]
        return (len(self.shifting) + maxima) * self.slot_parts if maxima else 0

    @property
    def slot_parts(self) -> int:
        """In how many whole numbers of 16 bits a number crosses; 1 if it crosses as it is.

        Divided by a power of two, and multiplied by it, a number stays the same to the last bit;
        with other numbers of devices only whole numbers do, once they are rounded.
        """
        is_exact = self.slots & (self.slots - 1) == 0
        return 1 if is_exact else self.dtype.itemsize // 2

    def split(self, vector: Any) -> tuple[Any, Any, Any, Any]:
        """Plain scalars, sums, limbs, and maxima or slots, along the last axis of a vector or of
        several."""
        plain, sums, limbs, _ = self._ends
        return (
            vector[..., :plain],
            vector[..., plain:sums],
            vector[..., sums:limbs],
            vector[..., limbs:],
        )

    def owners(self) -> list[str]:
        """Of each number of the vector, the name of its metric; only for one without a step."""
        sums = [(spec.name, _size(spec.sums)) for spec in self.partials]
        maxima = [(spec.name, _size(spec.maxima)) for spec in self.partials]
        return [*self.plain, *(name for name, size in sums + maxima for _ in range(size))]

    def without(self, names: set[str]) -> "Schema":
        """What the numbers of the other metrics mean."""
        plain = tuple(name for name in self.plain if name not in names)
        partials = tuple(spec for spec in self.partials if spec.name not in names)
        return replace(self, plain=plain, partials=partials)

    @functools.cached_property
    def shifting(self) -> np.ndarray:
        """Which sums, counted from the first, are taken around a point that maxima give."""
        shifts = [spec.shift is not None for spec in self.partials]
        return np.flatnonzero(np.repeat(shifts, [_size(spec.sums) for spec in self.partials]))

    def shifted(self, sums: Any, maxima: Any, merged: Any, numpy: ModuleType) -> Any:
        """Sums `(..., sums)`, not merged, moved to the point that merged maxima give.

        `maxima` are those of the sums, `merged` the merged ones, both `(..., maxima)`.
        """
        if not self.shifting.size:
            return sums
        moved = []
        both = zip(self._parts(sums, maxima), self._parts(sums, merged), strict=True)
        for (spec, own, own_maxima), (_, _, merged_maxima) in both:
            if spec.shift is not None:
                own = spec.shift(own, own_maxima, merged_maxima, numpy)
            for each, length in zip(own, spec.sums, strict=True):
                last = each[..., None] if length is None else numpy.moveaxis(each, 0, -1)
                moved.append(last)
        return numpy.concatenate(moved, axis=-1)

    def without_slots(self, vectors: Any, numpy: ModuleType) -> tuple[Any, Any, Any, Any]:
        """As `split`, of merged vectors `(*rows, n)`: what was in slots is merged here."""
        plain, sums, limbs, rest = self.split(vectors)
        if not self.slots:
            return plain, sums, limbs, rest
        # `(*rows, numbers, devices)`, each the content of a slot / slots.
        slots = rest.reshape(*rest.shape[:-1], self.slot_size, self.slots) * self.slots
        slots = self._joined(numpy.swapaxes(slots, -1, -2), numpy).astype(vectors.dtype)
        shifting = len(self.shifting)
        maxima = slots[..., shifting:]
        merged = maxima.max(-2)
        if shifting:
            # Those of all sums, as `shifted` expects; what does not shift is not looked at.
            places = np.zeros(sums.shape[-1], int)
            places[self.shifting] = np.arange(shifting)
            around = numpy.broadcast_to(merged[..., None, :], maxima.shape)
            moved = self.shifted(slots[..., places], maxima, around, numpy).mean(-2)
            shifts = np.zeros(sums.shape, np.bool_)
            shifts[..., self.shifting] = True
            sums = numpy.where(shifts, moved, sums)
        return plain, sums, limbs, merged

    def _joined(self, slots: Any, numpy: ModuleType) -> Any:
        """The numbers of slots, each of `slot_parts`, lowest first."""
        if self.slot_parts == 1:
            return slots
        whole = np.dtype(f"u{self.dtype.itemsize}")
        parts = numpy.round(slots).astype(whole)
        parts = parts.reshape(*slots.shape[:-1], -1, self.slot_parts)
        bits = parts[..., 0]
        for i in range(1, self.slot_parts):
            bits = bits | (parts[..., i] << (16 * i))
        return bits.view(self.dtype)

    def messages(self, bodies: np.ndarray) -> list[list[tuple[int, Totals]]]:
        """For each message from the devices, iteration and totals of each of its rows.

        Args:
            bodies: `(messages, n)` int32: number of rows | iteration of each | their vectors as
                int32. There may be room for more rows than there are.
        """
        words = self.dtype.itemsize // 4
        room = (bodies.shape[1] - 1) // (1 + self.size * words)
        counts, iterations = bodies[:, 0], bodies[:, 1 : 1 + room]
        vectors = np.ascontiguousarray(bodies[:, 1 + room :]).view(self.dtype)
        used = np.arange(room) < counts[:, None]
        vectors = vectors.reshape(len(bodies), room, self.size)[used]
        # An absent maximum is infinite, and what is around it NaN, on purpose.
        with np.errstate(invalid="ignore"):
            plain, sums, limbs, maxima = self.without_slots(vectors.astype(np.float64), np)
        sums = sums * self._devices_of_sums
        steps: list[int | None] = [None] * len(vectors)
        if self.step_devices is not None:
            counts_of_steps = join_limbs(limbs * self.step_devices).tolist()
            steps = [(self.unit or 1) * count for count in counts_of_steps]
        numbers = zip(plain, sums, maxima, steps, strict=True)
        totals = [Totals(self.devices, *each, self.members) for each in numbers]
        rows = zip(iterations[used].tolist(), totals, strict=True)
        return [[next(rows) for _ in range(count)] for count in counts.tolist()]

    @functools.cached_property
    def _devices_of_sums(self) -> np.ndarray:
        sizes = [_size(spec.sums) for spec in self.partials]
        return np.repeat([spec.devices for spec in self.partials], sizes)

    def local(self, totals: Totals) -> Totals:
        """Those of the partials that each process has for itself."""
        specs = self.partials[: len(self.local_names)]
        sums = totals.sums[: sum(_size(spec.sums) for spec in specs)]
        maxima = totals.maxima[: sum(_size(spec.maxima) for spec in specs)]
        return totals._replace(devices=0, plain=totals.plain[:0], sums=sums, maxima=maxima)

    def merge(self, parts: Sequence[Totals]) -> Totals:
        """The totals of one row, given those of several processes, process 0's first."""
        devices = sum(part.devices for part in parts)
        plain = np.sum([part.plain * part.devices for part in parts], axis=0) / devices
        maxima = np.max([part.maxima for part in parts], axis=0)
        with np.errstate(invalid="ignore"):
            sums = [self.shifted(part.sums, part.maxima, maxima, np) for part in parts]
        steps = [part.step for part in parts if part.step is not None]
        step = None if not steps else sum(steps) if self.sums_steps else max(steps)
        members = 1 if self.sums_steps else sum(part.members for part in parts)
        return Totals(devices, plain, np.sum(sums, axis=0), maxima, step, members)

    def finish(self, rows: Sequence[Totals]) -> RowBatch:
        """Totals become rows; raises if a partial fails, unless it is one row."""
        plain = np.stack([row.plain for row in rows])
        steps = [row.step or 0 for row in rows]
        if not self.partials:
            return RowBatch(self.plain, steps, plain, np.zeros(plain.shape, np.bool_), {}, {})
        names, columns, absent = [*self.plain], [plain], [np.zeros(plain.shape, np.bool_)]
        vectors: dict[str, np.ndarray] = {}
        absent_vectors: dict[str, np.ndarray] = {}
        failed: dict[str, Exception] = {}
        sums, maxima = np.stack([row.sums for row in rows]), np.stack([row.maxima for row in rows])
        # What has no value yet is infinite or NaN on the way, on purpose.
        with np.errstate(invalid="ignore"):
            for spec, own_sums, own_maxima in self._parts(sums, maxima):
                try:
                    found = _finish(spec, own_sums, own_maxima, np)
                except Exception as error:
                    # A formula of the user's: of many rows it fails for one, and costs this row
                    # only its own metric.
                    if len(rows) > 1:
                        raise
                    failed[spec.name] = error
                    continue
                for name, value, is_absent in found:
                    if is_absent is None:
                        is_absent = np.zeros(value.shape, np.bool_)
                    if value.ndim > 1:
                        vectors[name] = value.T
                        absent_vectors[name] = np.asarray(is_absent.all(axis=0))
                        continue
                    names.append(name)
                    columns.append(value[:, None])
                    absent.append(is_absent[:, None])
        return RowBatch(
            tuple(names),
            steps,
            np.concatenate(columns, axis=1),
            np.concatenate(absent, axis=1),
            vectors,
            absent_vectors,
            failed,
        )

    def finished(self, vectors: Any, numpy: ModuleType) -> Iterator[tuple[str, Any, Any]]:
        """The metrics of the partials of reduced vectors `(*rows, n)` in the step: name, value
        `(*rows,)` or `(length, *rows)`, and where there is none, so that it is NaN; `None` if there
        always is one."""
        _, sums, _, maxima = self.without_slots(vectors, numpy)
        # In the type and rank of the sums: users may have JAX refuse promotion.
        devices = self._devices_of_sums.astype(sums.dtype).reshape(*[1] * (sums.ndim - 1), -1)
        for spec, own_sums, own_maxima in self._parts(sums * devices, maxima):
            yield from _finish(spec, own_sums, own_maxima, numpy)

    def _parts(self, sums: Any, maxima: Any) -> Iterator[tuple[PartialSpec, list[Any], list[Any]]]:
        """Each partial with its sums and maxima: `(*rows,)` for a scalar, `(n, *rows)` else."""
        first_sum = first_maximum = 0
        for spec in self.partials:
            yield (
                spec,
                _take(sums, first_sum, spec.sums),
                _take(maxima, first_maximum, spec.maxima),
            )
            first_sum += _size(spec.sums)
            first_maximum += _size(spec.maxima)


def _finish(
    spec: PartialSpec, sums: Sequence[Any], maxima: Sequence[Any], numpy: ModuleType
) -> list[tuple[str, Any, Any]]:
    """As `Schema.finished`, of the totals of one partial."""
    values, weight = spec.finish(sums, maxima, numpy)
    found = []
    for suffix, value in values.items():
        is_absent = None
        # A number that the formula itself holds is known to the trace.
        if hasattr(weight, "ndim") or weight == 0:
            # A scalar of several weights has no value if all of them are 0.
            empty = numpy.asarray(weight == 0)
            while empty.ndim > value.ndim:
                empty = empty.all(axis=0)
            is_absent = numpy.logical_and(empty, numpy.isnan(value))
        found.append((spec.name + suffix, value, is_absent))
    return found


def join_limbs(totals: np.ndarray) -> np.ndarray:
    """The integers, `sum(limb[i] * 2**(8 * i))`, whose limbs, summed over devices, are `totals`
    `(*rows, limbs)` up to rounding below 1/2."""
    return np.rint(totals).astype(np.int64) @ _LIMB_VALUES


def _size(lengths: Lengths) -> int:
    return sum(1 if length is None else length for length in lengths)


def _take(numbers: Any, first: int, lengths: Lengths) -> list[Any]:
    found = []
    for length in lengths:
        if length is None:
            found.append(numbers[..., first])
            first += 1
        else:
            own = numbers[..., first : first + length]
            found.append(own.transpose(-1, *range(own.ndim - 1)))
            first += length
    return found
