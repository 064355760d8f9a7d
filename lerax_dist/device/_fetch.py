"""From a plain loop to the host: values that another thread can read without any device work."""

import functools
import reprlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, final

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer
from jax.sharding import Sharding, SingleDeviceSharding

from lerax_dist._schema import HostMetrics, Lengths, PartialSpec, Schema, Slots
from lerax_dist.device._layout import Layout, contents
from lerax_dist.device._pack import Reduced, number_length
from lerax_dist.device._partials import AbstractPartial, Mean

# Rows of training and of evaluation take turns, often with names for each task.
_MAX_PLANS = 32
# How many scalars a program copies. Compiling takes some 25 ms, so there is one of each size for
# each dtype and shape on each device, whatever is logged; what is left over is padded.
_SIZES = (8, 32, 64)
# The second is what a device holds of an array that is split over devices. Others are copied alone.
_SHAPES = ((), (1,))
# Values of these types need no further check.
_FIXED = (bool, int, float, np.bool_, np.integer, np.floating)

_local_data = methodcaller("addressable_data", 0)
_is_deleted = methodcaller("is_deleted")
_ADDRESSABLE = "is_fully_addressable"
_kind = attrgetter("aval", "sharding")


@final
class Fetcher:
    """Takes the values of rows over from the training thread, at little cost to it.

    The first row of a layout is checked metric by metric; the plan that comes of it serves the next
    rows with the same names and types.
    """

    def __init__(
        self, leave_out: Callable[[str, Exception], None], *, is_first: bool = True
    ) -> None:
        """
        Args:
            leave_out: takes the name of a value that cannot be logged, and why; may raise that.
            is_first: whether this is process 0.
        """
        self._leave_out = leave_out
        self._is_first = is_first
        self._plans: tuple[_Plan, ...] = ()
        # Names of the last reduced metrics, and what came of them: a compiled step returns the same
        # object each time.
        self._last: tuple[Any, ...] = (None,) * 7

    def fetch(self, metrics: Any, here: bool) -> HostMetrics:
        """Take the values of a row over as they are now; waits for nothing.

        Arrays are copied, on their device and many at once: the caller may donate them to the next
        step. It reads one device's copy of a value that is whole there, so this is no collective.
        What `reduce` returned is no state of the training, and is kept without a copy.

        Left out is what is not a real number, or larger than any float; what is not a scalar, is
        sharded over processes, is held only by processes that do not write it, or was donated; and
        what has no name, or that of another value.

        Args:
            metrics: a pytree of values, by their names.
            here: whether this process writes its values; else process 0 writes its own, and this
                copies nothing but numbers of partials, and leaves out what is left out there.

        Raises:
            TypeError: if a value belongs to a trace.
        """
        if type(metrics) is not Reduced:
            return self._fetch(metrics, here)
        names, optional, shape, schema, numbers, slots, gates = self._last
        vector = metrics.vector
        if metrics.names is names and metrics.optional is optional and vector.shape == shape:
            try:
                if not vector.is_deleted():
                    return schema, numbers, [(slots, gates, vector)]
            except (AttributeError, jax.errors.ConcretizationTypeError):
                pass  # An array of NumPy, or of a trace.
        names, optional = metrics.names, metrics.optional
        fetched = self._fetch({"": metrics}, here, is_root=True)
        if len(fetched[2]) == 1:
            self._last = (names, optional, vector.shape, *fetched[:2], *fetched[2][0][:2])
        return fetched

    def _fetch(self, metrics: Any, here: bool, *, is_root: bool = False) -> HostMetrics:
        if contents(metrics) is None:
            metrics = {"": metrics}
        for plan in self._plans:
            values = plan.layout.values(metrics) if plan.is_root == is_root else None
            if values is not None:
                try:
                    fetched = plan.fetch(values)
                except Exception:
                    # An array of another shape, dtype or device than the plan is for, or one that
                    # was deleted: a new plan finds out below.
                    continue
                break
        else:
            plan = _Plan(metrics, here, self._is_first, is_root, self._leave_out)
            values = plan.layout.values(metrics)
            assert values is not None
            fetched = plan.fetch(values, is_new=True)
        # A value that cannot be logged in this row may be one that can in the next.
        if plan.is_complete and (not self._plans or plan is not self._plans[0]):
            # The least recently used one is dropped.
            others = [other for other in self._plans if other is not plan]
            self._plans = (plan, *others[: _MAX_PLANS - 1])
        return fetched


def sample_of(metrics: Any, wanted: Sequence[str]) -> list[tuple[tuple[str, ...], Any]]:
    """Names and values, as they are now, of those wanted plain values of a row that this process
    may have for itself; of what `reduce` returned all."""
    if isinstance(metrics, Reduced):
        metrics = {"": metrics}
    layout = Layout(metrics)
    values = layout.values(metrics)
    assert values is not None
    left, found = {*wanted}, []
    for name, i in sorted(
        layout.entries(), key=lambda each: not isinstance(values[each[1]], Reduced)
    ):
        value = values[i]
        names = (name or "",)
        if isinstance(value, Reduced):
            names, value = tuple(_joined(name or "", each) for each in value.names), value.vector
        if left.isdisjoint(names) or not getattr(value, _ADDRESSABLE, True):
            continue
        left.difference_update(names)
        found.append((names, _copy(value) if isinstance(value, jax.Array) else np.array(value)))
    return found


@final
class _Plan:
    """How rows of one layout are taken over.

    Attributes:
        layout: names and types of these rows.
        is_root: whether the one value, which `reduce` returned, has no name.
        is_complete: whether no value was left out.
    """

    def __init__(
        self,
        metrics: Any,
        here: bool,
        is_first: bool,
        is_root: bool,
        leave_out: Callable[[str, Exception], None],
    ) -> None:
        self.layout = Layout(metrics)
        self.is_root = is_root
        self._here = here
        self._is_first = is_first
        self.is_complete = True
        self._scalars: dict[str, int] = {}
        # By their places: names; and what a partial means, with the places of its numbers.
        self._reduced: dict[int, list[str]] = {}
        self._partials: dict[int, tuple[PartialSpec, range]] = {}
        self._taken: set[str] = set()
        values = self.layout.values(metrics)
        assert values is not None
        entries = self.layout.entries()
        # First, for what shares a name with one of many metrics is left out, not all of these.
        entries.sort(key=lambda entry: not isinstance(values[entry[1]], Reduced))
        for name, i in entries:
            try:
                if name is None and not is_root:
                    raise ValueError(
                        f"`metrics` must hold names and values, got {reprlib.repr(values[i])} "
                        'under an empty name. Name the value, as in `{"train/loss": loss}`.'
                    )
                self._add(name or "", i, values)
            except _TracedError:
                raise
            except Exception as error:
                leave_out(name or "metrics", error)
                self.is_complete = False
        self._arrange(values)

    def _add(self, name: str, i: int, values: list[Any]) -> None:
        """Add a value; the numbers of a partial become further values."""
        value = values[i]
        _check(name, value, self._here)
        names = [name]
        if isinstance(value, Reduced):
            names = [_joined(name, each) for each in value.names]
        twice = self._taken.intersection(names)
        if twice:
            raise ValueError(
                f"`metrics` has the name {min(twice)!r} twice once nested names are joined with "
                "'/'. Rename one of them."
            )
        self._taken.update(names)
        if isinstance(value, Reduced):
            self._reduced[i] = names
        elif isinstance(value, AbstractPartial):
            spec, numbers = _numbers_of(name, value, self._is_first)
            self._partials[i] = spec, range(len(values), len(values) + len(numbers))
            values += numbers
        else:
            self._scalars[name] = i

    def _arrange(self, values: list[Any]) -> None:
        """Give each value its slots in the vector of the row, and each array its way there."""
        partials = [*self._partials.values()]
        optional = {names[j] for i, names in self._reduced.items() for j in values[i].optional}
        reduced = [name for names in self._reduced.values() for name in names]
        plain = [*(name for name in reduced if name not in optional), *self._scalars]
        specs = [spec for spec, _ in partials]
        slot_of = {name: slot for slot, name in enumerate(plain)}
        slots = {i: range(slot_of[name], slot_of[name] + 1) for name, i in self._scalars.items()}
        end = len(plain)
        for spec, places in partials:
            end = _place(slots, places[: len(spec.sums)], spec.sums, end)
        for name in reduced:
            if name in optional:
                # Its value and how many there are, which is 0 or 1.
                specs.append(PartialSpec(name, Mean.finish, None, (None, None), (), 1))
                slot_of[name] = end
                end += 2
        for spec, places in partials:
            end = _place(slots, places[len(spec.sums) :], spec.maxima, end)
        self._schema = Schema(tuple(plain), tuple(specs), sums_steps=False)
        self._vectors = [
            (
                i,
                (values[i].names, values[i].optional, values[i].vector.shape),
                [slot_of[name] for name in names],
                [slot_of[names[j]] + 1 for j in values[i].optional],
            )
            for i, names in self._reduced.items()
        ]
        fixed, others, alone = [], [], []
        vectors: list[int] = []
        # Each process has numbers of partials for itself.
        local = {i for _, places in partials for i in places}
        stacked: dict[Any, list[int]] = {}
        for i in slots:
            value = values[i]
            is_taken = self._here or i in local
            if i in local and isinstance(value, np.ndarray):
                vectors.append(i)
            elif not isinstance(value, jax.Array):
                (fixed if isinstance(value, _FIXED) else others).append(i)
            elif is_taken and value.shape in _SHAPES:
                single = isinstance(value.sharding, SingleDeviceSharding)
                sharding = value.sharding if single else _local_data(value).sharding
                stacked.setdefault((value.dtype, value.shape, single, sharding), []).append(i)
            else:
                alone.append(i)
        self._alone = _picker(alone)
        self._kinds = tuple(_kind(values[i]) for i in alone)
        self._alone_slots = [slots[i] if self._here or i in local else None for i in alone]
        self._host_vectors = [(i, slots[i]) for i in vectors]
        self._numbers = _picker(fixed)
        self._others = others
        self._number_slots = [slots[i][0] for i in [*fixed, *others]]
        self._groups = [
            _Group(places[first : first + _SIZES[-1]], slots, *kind)
            for kind, places in stacked.items()
            for first in range(0, len(places), _SIZES[-1])
        ]

    def fetch(self, values: list[Any], *, is_new: bool = False) -> HostMetrics:
        """Take over the values that the layout gives; raises if the plan is not for them."""
        for i, (spec, _) in self._partials.items():
            found, numbers = _numbers_of(spec.name, values[i], self._is_first)
            _same(found, spec)
            values += numbers
        # Beside a busy step each call costs some 5 us, so none is made for what there is none of.
        numbers = [*map(float, self._numbers(values))] if self._number_slots else []
        if self._others:
            numbers += [_number("", values[i]) for i in self._others]
        arrays: list[tuple[Slots, Slots, Any]] = []
        for i, known, slots, gates in self._vectors:
            vector = values[i].vector
            _same((values[i].names, values[i].optional, vector.shape), known)
            if isinstance(vector, np.ndarray):
                vector = vector.copy()
            else:
                _same(vector.is_deleted(), False)
            arrays.append((slots, gates, vector))
        for group in self._groups:
            arrays += group.fetch(values, is_new)
        if self._kinds:
            alone = self._alone(values)
            _same((tuple(map(_kind, alone)), any(map(_is_deleted, alone))), (self._kinds, False))
            each = zip(self._alone_slots, alone, strict=True)
            arrays += [(slots, (), _copy(value)) for slots, value in each if slots is not None]
        if self._host_vectors:
            arrays += [(slots, (), values[i].copy()) for i, slots in self._host_vectors]
        return self._schema, (self._number_slots, numbers), arrays


@final
class _Group:
    """Arrays of one dtype, shape and device: one compiled program copies them into a vector."""

    def __init__(
        self,
        places: list[int],
        slots: dict[int, range],
        dtype: Any,
        shape: tuple[int, ...],
        single: bool,
        sharding: Sharding,
    ) -> None:
        self._pick = _picker(places)
        self._slots = [slots[i][0] for i in places]
        self._single = single
        size = next(size for size in _SIZES if size >= len(places))
        self._padding = size - len(places)
        self._key = size, dtype, shape, sharding
        self._program: jax.stages.Compiled | None = None

    def fetch(self, values: list[Any], is_new: bool) -> list[tuple[Slots, Slots, jax.Array]]:
        """Slots and vector; one by one if they cannot be copied together."""
        arrays = self._pick(values)
        if not self._single:
            # It takes longer than all else here.
            arrays = [*map(_local_data, arrays)]
        try:
            if self._program is None:
                self._program = _program(*self._key)
            padded = [*arrays, *[arrays[-1]] * self._padding]
            # JAX adds its options to `config` at run time.
            if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
                # It debugs the user's step; what is compiled already cannot be called there.
                with jax.disable_jit(False):
                    vector = self._program(*padded)
            else:
                vector = self._program(*padded)
        except Exception:
            if not is_new:
                raise
            # No thread starts any more while the interpreter exits; or NaN is being debugged.
            each = zip(self._slots, arrays, strict=True)
            return [([slot], (), _copy(array)) for slot, array in each]
        vector.copy_to_host_async()
        return [(self._slots, (), vector)]


@functools.cache
def _program(
    size: int, dtype: Any, shape: tuple[int, ...], sharding: Sharding
) -> jax.stages.Compiled:
    """A compiled function that makes a vector of scalars on one device."""

    def make() -> jax.stages.Compiled:
        with jax.enable_x64(True), jax.disable_jit(False):
            like = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)] * size
            # Compiled ahead of time: `jit` would trace again for each mix of weak types.
            return jax.jit(lambda *scalars: jnp.stack(scalars).ravel()).lower(*like).compile()

    # In another thread, since a mesh that the training has set, or a trace that it is in, belongs
    # to its own thread. With neither, `jax.jit` would be as fast.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(make).result()


def _copy(value: jax.Array) -> jax.Array:
    """A copy that the host is going to read. It takes longer than a program, but compiles none."""
    single = isinstance(value.sharding, SingleDeviceSharding)
    with jax.ensure_compile_time_eval():
        copy = jax.device_put(value if single else _local_data(value), may_alias=False)
    copy.copy_to_host_async()
    return copy


def _picker(places: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """What picks the values at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[i] for i in places]


def _place(slots: dict[int, range], places: range, lengths: Lengths, first: int) -> int:
    """Add slots, from the first on, for numbers of these lengths; returns the one after them."""
    for i, length in zip(places, lengths, strict=True):
        slots[i] = range(first, first + (1 if length is None else length))
        first = slots[i].stop
    return first


def _same(found: Any, known: Any) -> None:
    if found != known:
        raise ValueError


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _numbers_of(
    name: str, partial: AbstractPartial, is_first: bool
) -> tuple[PartialSpec, list[Any]]:
    """What a partial means, and its numbers: sums, then maxima. Those of NumPy stay there."""
    leaves, tree = jax.tree.flatten(partial)
    shared = [i for i, leaf in enumerate(leaves) if not getattr(leaf, _ADDRESSABLE, True)]
    if shared:
        for i in shared:
            _same(leaves[i].is_fully_replicated, True)
            leaves[i] = _local_data(leaves[i])
        partial = jax.tree.unflatten(tree, leaves)
    own_maxima = partial.maxima()
    # Of NumPy: within a trace an array would be made by it.
    first: Any = np.asarray(is_first)
    own_sums: Sequence[Any] = partial.sums(own_maxima, first)
    if shared and not is_first:
        # All processes have it; it counts once.
        own_sums = [np.zeros(np.shape(number)) for number in own_sums]
    numbers = [
        number if isinstance(number, jax.Array) else np.asarray(number)[()]
        for number in (*own_sums, *own_maxima)
    ]
    lengths = [number_length(name, number) if np.ndim(number) else None for number in numbers]
    kind, count = type(partial), len(own_sums)
    sums, maxima = tuple(lengths[:count]), tuple(lengths[count:])
    return PartialSpec(name, kind.finish, kind.shift, sums, maxima, 1, True), numbers


def _check(name: str, value: Any, here: bool) -> None:
    """Check a value of a row, see `Fetcher.fetch`; waits for nothing."""
    if isinstance(value, jax.Array):
        _check_array(name, value, here)
        _check_shape(name, value.shape)
    elif isinstance(value, Reduced):
        name = _joined(name, next(iter(value.names), ""))
        vector = value.vector
        if isinstance(vector, jax.Array):
            _check_array(name, vector, here)
        if vector.shape[-1:] != (len(value.names) + len(value.optional),):
            raise ValueError(
                f"metric {name!r} is one of {len(value.names)} in a vector of shape "
                f"{vector.shape}. Change no shape of what `reduce` returned."
            )
        _check_shape(name, vector.shape[:-1])
    elif isinstance(value, AbstractPartial):
        for leaf in jax.tree.leaves(value):
            if isinstance(leaf, jax.Array):
                _check_array(name, leaf, True)
        for number in _numbers_of(name, value, True)[1]:
            if isinstance(number, jax.Array):
                _check_array(name, number, True)
            else:
                # Of a vector one number tells its type.
                _number(name, number.ravel()[0] if np.ndim(number) and number.size else number)
    else:
        _number(name, value)


def _number(name: str, value: Any) -> float:
    """A real number that is no array of JAX."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        # Not the value itself: Python refuses to print more than 4300 digits.
        raise ValueError(
            f"metric {name!r} is an integer of {value.bit_length()} bits, more than a float holds. "
            "Log its logarithm."
        )
    try:
        array = np.asarray(value) if hasattr(value, "__array__") else None
    except Exception:
        array = None
    if array is not None:
        _check_shape(name, array.shape)
    # Python makes a number of a text, and NumPy of a complex one.
    is_real = not isinstance(value, (str, bytes)) if array is None else _is_real(array.dtype)
    try:
        if is_real:
            return float(value if array is None else array.reshape(()))
    except Exception:
        pass
    raise TypeError(
        f"metric {name!r} is {reprlib.repr(value)} of type {type(value).__name__}; metrics are "
        "real numbers. Use float(value), or log it as a hyperparameter."
    )


@final
class _TracedError(TypeError):
    """A value belongs to a trace, so nothing that is logged would be right."""


def _check_array(name: str, value: jax.Array, here: bool) -> None:
    if isinstance(value, Tracer):
        raise _TracedError(
            f"metric {name!r} belongs to a trace: `log` was called inside compiled code, where it "
            "would run once, while tracing. Return the value from the step and log it outside, or "
            "use `LoggingCallback` inside."
        )
    if value.is_deleted():
        raise ValueError(
            f"metric {name!r} was deleted: it has been donated to a step. Log it before that."
        )
    if not value.is_fully_addressable:
        _check_holders(name, value, here)
    if not _is_real(value.dtype):
        raise TypeError(
            f"metric {name!r} has dtype {value.dtype}; metrics are real numbers. "
            "Log e.g. its absolute value."
        )


def _check_holders(name: str, value: jax.Array, here: bool) -> None:
    if not value.is_fully_replicated:
        raise ValueError(
            f"metric {name!r} is sharded over processes: shape {value.shape}, sharding "
            f"{value.sharding}; this process holds a part only. Reduce it in the compiled step, "
            "with `jnp.mean` on global arrays or with `lerax_dist.reduce` inside `shard_map`."
        )
    holders = sorted({device.process_index for device in value.sharding.device_set})
    # A value of this process alone may be one that each process has for itself: only process 0 can
    # tell that it has none.
    writer = jax.process_index() if here else 0
    if writer not in holders:
        raise ValueError(
            f"metric {name!r} is addressable only on processes {holders}, not on the "
            "process that writes it. Replicate it on all processes first, e.g. with "
            "`jax.experimental.multihost_utils.broadcast_one_to_all`."
        )


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if any(length != 1 for length in shape):
        raise ValueError(
            f"metric {name!r} must be a scalar, got shape {shape}. Reduce it first, e.g. with "
            "`.mean()`."
        )


@functools.cache
def _is_real(dtype: Any) -> bool:
    # By JAX: for NumPy bfloat16 is not a floating type.
    kinds = (np.bool_, np.integer, np.floating)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
