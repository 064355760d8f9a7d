"""What the numbers of a row's vector mean. Static; it outlives the trace. Pure.

Layout of the vector: plain scalars | sums of partials | limbs of the step | maxima of partials.
All but the maxima ride in a mean over devices (they may as well, see `_merge`); a sum is its mean
times the number of devices, which the trace knows.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, final

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist.device import _steps
from lerax_dist.device._partials import Finish, Shift


class Slot(NamedTuple):
    """Where one partial lies in the vector, and how it becomes a metric."""

    name: str
    finish: Finish
    shift: Shift | None
    sums: int
    maxima: int
    devices: int


class Totals(NamedTuple):
    """A row on the host that can still be merged with those of other processes.

    Attributes:
        devices: over how many devices the plain scalars are means.
        plain: plain scalars.
        sums: sums of all partials, one after the other.
        maxima: likewise.
        step: exact number of steps; `None` if there is none.
    """

    devices: int
    plain: np.ndarray
    sums: np.ndarray
    maxima: np.ndarray
    step: int | None


@final
@dataclass(frozen=True, eq=False)
class Schema:
    """What the numbers of a vector mean.

    Attributes:
        plain: names of the plain scalars.
        slots: the partials.
        steps: over how many devices the step is summed; `None` if there is no step.
        devices: over how many devices everything is reduced.
    """

    plain: tuple[str, ...]
    slots: tuple[Slot, ...]
    steps: int | None
    devices: int

    @property
    def first_limb(self) -> int:
        """Where the limbs of the step begin."""
        return len(self.plain) + sum(slot.sums for slot in self.slots)

    @property
    def first_maximum(self) -> int:
        """Where the maxima begin, behind everything that rides in the mean."""
        return self.first_limb + (0 if self.steps is None else _steps.LIMBS)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.first_maximum + sum(slot.maxima for slot in self.slots)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is logged, those of partials without their suffixes."""
        return (*self.plain, *(slot.name for slot in self.slots))

    @property
    def layout(self) -> tuple[Any, ...]:
        """All that two vectors which lie in one buffer have in common."""
        return (self.plain, self.slots, self.steps, self.devices)

    @property
    def shifting(self) -> np.ndarray:
        """Which sums, counted from the first, are taken around a point that maxima give."""
        shifts = [slot.shift is not None for slot in self.slots]
        return np.flatnonzero(np.repeat(shifts, [slot.sums for slot in self.slots]))

    def shifted(self, sums: Any, maxima: Any, merged: Any, numpy: ModuleType) -> Any:
        """Sums taken around merged maxima, for `numpy` or `jax.numpy`.

        Args:
            sums: `(..., first_limb - plain)`, all sums, not reduced.
            maxima: `(..., maxima)`, likewise.
            merged: `(..., maxima)`, the merged maxima.

        Returns:
            All sums.
        """
        return _shift(self.slots, sums, maxima, merged, numpy)

    def totals(self, vectors: np.ndarray) -> list[Totals]:
        """Reduced vectors on the host, `(rows, size)` of any float type, as totals."""
        vectors = vectors.astype(np.float64)
        plain = vectors[:, : len(self.plain)]
        sums = vectors[:, len(self.plain) : self.first_limb] * self._devices_of_sums
        maxima = vectors[:, self.first_maximum :]
        steps: list[int | None] = [None] * len(vectors)
        if self.steps is not None:
            limbs = vectors[:, self.first_limb : self.first_maximum]
            steps = _steps.join(limbs * self.steps).tolist()
        rows = zip(plain, sums, maxima, steps, strict=True)
        return [Totals(self.devices, *row) for row in rows]

    def combine(self, shares: Sequence[Sequence[Any]]) -> Totals:
        """The totals of one row of the totals of several processes (or tuples like them)."""
        known = [Totals(*share) for share in shares]
        devices = sum(each.devices for each in known)
        plain = np.sum([each.plain * each.devices for each in known], axis=0) / devices
        maxima = np.max([each.maxima for each in known], axis=0)
        with np.errstate(invalid="ignore"):
            sums = [self.shifted(each.sums, each.maxima, maxima, np) for each in known]
        steps = [each.step for each in known if each.step is not None]
        step = sum(steps) if steps else None
        return Totals(devices, plain, np.sum(sums, axis=0), maxima, step)

    def finish(
        self, rows: Sequence[Totals]
    ) -> tuple[tuple[str, ...], list[int], np.ndarray, np.ndarray]:
        """The rows that these totals are of.

        Returns:
            Names of their metrics, their steps, and `(rows, metrics)` values in float64 and which
            of them there are none of yet, for no episode has ended.
        """
        names, columns = [*self.plain], [np.stack([row.plain for row in rows])]
        absent = [np.zeros(columns[0].shape, np.bool_)]
        sums, maxima = np.stack([row.sums for row in rows]), np.stack([row.maxima for row in rows])
        # What has no value yet is infinite or NaN on the way, on purpose.
        with np.errstate(invalid="ignore"):
            for slot, own_sums, own_maxima in _parts(self.slots, sums, maxima):
                values, weight = slot.finish(own_sums.T, own_maxima.T, np)
                for suffix, column in values.items():
                    names.append(slot.name + suffix)
                    columns.append(column[:, None])
                    absent.append(np.logical_and(weight == 0, np.isnan(column))[:, None])
        steps = [row.step or 0 for row in rows]
        return tuple(names), steps, np.concatenate(columns, axis=1), np.concatenate(absent, axis=1)

    @functools.cached_property
    def _devices_of_sums(self) -> np.ndarray:
        return np.repeat([s.devices for s in self.slots], [s.sums for s in self.slots])

    def metrics(self, vector: Float[Array, " n"]) -> dict[str, Array]:
        """The metrics of a reduced vector inside compiled code; what has no value is NaN."""
        metrics = {name: vector[place] for place, name in enumerate(self.plain)}
        means = vector[len(self.plain) : self.first_limb]
        for slot, sums, maxima in _parts(self.slots, means, vector[self.first_maximum :]):
            for suffix, value in slot.finish(sums * slot.devices, maxima, jnp).values.items():
                metrics[slot.name + suffix] = value
        return metrics


def _parts(slots: Sequence[Slot], sums: Any, maxima: Any) -> list[tuple[Slot, Any, Any]]:
    """Each slot with what is its own along the last axis."""
    parts = []
    at_sum = at_maximum = 0
    for slot in slots:
        own = sums[..., at_sum : at_sum + slot.sums]
        parts.append((slot, own, maxima[..., at_maximum : at_maximum + slot.maxima]))
        at_sum += slot.sums
        at_maximum += slot.maxima
    return parts


def _shift(slots: Sequence[Slot], sums: Any, maxima: Any, merged: Any, numpy: ModuleType) -> Any:
    if not any(slot.shift for slot in slots):
        return sums
    moved = []
    both = zip(_parts(slots, sums, maxima), _parts(slots, sums, merged), strict=True)
    for (slot, own, own_maxima), (_, _, merged_maxima) in both:
        if slot.shift is not None:
            own, own_maxima, merged_maxima = (
                numpy.moveaxis(each, -1, 0) for each in (own, own_maxima, merged_maxima)
            )
            own = numpy.stack(slot.shift(own, own_maxima, merged_maxima, numpy), axis=-1)
        moved.append(own)
    return numpy.concatenate(moved, axis=-1)
