"""From a plain loop to the host: values that another thread can read without any device work."""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, final

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer
from jax.sharding import Sharding, SingleDeviceSharding

from lerax_dist._metric_names import Layout, flatten
from lerax_dist._schema import HostMetrics
from lerax_dist.device._pack import Reduced

# Rows of training and of evaluation take turns, often with names for each task.
_MAX_PLANS = 32
# Rows with as many arrays of the same dtypes share one; compiling takes long.
_MAX_PROGRAMS = 128
# Values of these types need no further check.
_FIXED = (bool, int, float, np.bool_, np.integer, np.floating)

_local_data = methodcaller("addressable_data", 0)
_is_deleted = methodcaller("is_deleted")
_kind = attrgetter("aval", "sharding")


@final
class Fetcher:
    """Takes the values of rows over from the training thread, at little cost to it.

    The first row of a layout is checked metric by metric; the plan that comes of it serves the next
    rows with the same names and types.
    """

    def __init__(self) -> None:
        self._plans: tuple[_Plan, ...] = ()
        self._known: set[tuple[str | None, tuple[str, ...]]] = set()
        # Names of the last reduced metrics: a compiled step returns the same object each time.
        self._last: tuple[str | None, tuple[str, ...]] = (None, ())

    def fetch(self, metrics: Mapping[str, Any], here: bool) -> HostMetrics:
        """Take the values of a row over as they are now; waits for nothing.

        Arrays are copied, on their device and all at once: the caller may donate them to the next
        step. It reads one device's copy of a value that is whole there, so this is no collective.
        What `reduce` returned is no state of the training, and is kept without a copy.

        Args:
            metrics: nested names to values.
            here: whether this process writes its values; else process 0 writes its own, and this
                copies nothing, but raises what it would raise there.

        Raises:
            ValueError: if a value is not a scalar, is sharded over processes, is held only by
                processes that do not write it, was donated, or is larger than any float; or if two
                names are the same once joined.
            TypeError: if a value is not a number, or belongs to a trace; or if a name is not a
                string.
        """
        if type(metrics) is Reduced:
            self._check_reduced(None, metrics, here)
            return metrics.names, {}, [(metrics.names, metrics.vector)]
        rest, reduced = _split_reduced(metrics)
        if not reduced:
            return self._fetch(rest, here)
        for prefix, each in reduced.items():
            self._check_reduced(prefix, each, here)
        reduced_vectors = [(_names(prefix, each), each.vector) for prefix, each in reduced.items()]
        if not rest and len(reduced_vectors) == 1:
            return reduced_vectors[0][0], {}, reduced_vectors
        others, numbers, arrays = self._fetch(rest, here) if rest else ((), {}, [])
        names = (*others, *(name for names, _ in reduced_vectors for name in names))
        if len(set(names)) < len(names):
            flatten(metrics)  # Raises, and names the duplicate.
        return names, numbers, arrays + reduced_vectors

    def _fetch(self, metrics: Mapping[str, Any], here: bool) -> HostMetrics:
        for plan in self._plans:
            values = plan.layout.values(metrics)
            if values is not None:
                try:
                    fetched = plan.fetch(values) if here else plan.check(values)
                except Exception:
                    # An array of another shape, dtype or device than the plan is for, or one that
                    # was deleted: a new plan finds out below.
                    continue
                if plan is not self._plans[0]:
                    self._remember(plan)
                return fetched
        flat = flatten(metrics)
        _check_values(flat, here)
        plan = _Plan(metrics, flat)
        values = plan.layout.values(metrics)
        assert values is not None
        fetched = plan.fetch(values) if here else plan.check(values)
        self._remember(plan)
        return fetched

    def _check_reduced(self, prefix: str | None, reduced: Reduced, here: bool) -> None:
        """Check reduced metrics that have new names, or whose vector was deleted."""
        last, names, vector = self._last, reduced.names, reduced.vector
        try:
            deleted = vector.is_deleted()
        except jax.errors.ConcretizationTypeError:
            deleted = True  # It belongs to a trace.
        if last[1] is names and last[0] == prefix and not deleted:
            return
        if (prefix, names) not in self._known or deleted:
            if prefix is not None:
                flatten({prefix: None})  # Raises, and says what is wrong with the name.
            if names:
                check_array(names[0], vector, vector.shape[:-1], here)
            self._known.add((prefix, names))
        self._last = prefix, names

    def _remember(self, plan: "_Plan") -> None:
        """Put a plan first; the least recently used one is dropped."""
        others = [other for other in self._plans if other is not plan]
        self._plans = (plan, *others[: _MAX_PLANS - 1])


@final
class _Plan:
    """How rows of one layout are taken over.

    Attributes:
        layout: names and types of these rows.
    """

    def __init__(self, metrics: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
        self.layout = Layout(metrics)
        self._names = tuple(flat)
        self._positions = {name: i for i, name in enumerate(self.layout.names()) if name}
        self._array_names = [name for name in flat if isinstance(flat[name], jax.Array)]
        self._number_names = [name for name in flat if not isinstance(flat[name], jax.Array)]
        self._unchecked = [n for n in self._number_names if not isinstance(flat[n], _FIXED)]
        self._numbers = self._picker(self._number_names)
        self._arrays = self._picker(self._array_names)
        self._kinds = tuple(_kind(flat[name]) for name in self._array_names)
        # Made when first needed: a process that does not write needs none.
        self._groups: list[_Group] | None = None

    def check(self, values: list[Any]) -> HostMetrics:
        """The names alone; raises if arrays have other types or shardings than the plan is for."""
        self._check_unchecked(values)
        arrays = self._arrays(values)
        if tuple(map(_kind, arrays)) != self._kinds or any(map(_is_deleted, arrays)):
            raise ValueError
        return self._names, {}, []

    def fetch(self, values: list[Any]) -> HostMetrics:
        """Take over the values that the layout gives."""
        self._check_unchecked(values)
        numbers = dict(zip(self._number_names, map(float, self._numbers(values)), strict=True))
        arrays: list[tuple[tuple[str, ...], jax.Array]] = []
        if self._groups is None:
            self._groups = self._grouped(self._arrays(values))
        for group in self._groups:
            arrays += group.fetch(values)
        return self._names, numbers, arrays

    def _grouped(self, arrays: Sequence[jax.Array]) -> list["_Group"]:
        groups: dict[Any, dict[str, Any]] = {}
        for name, value in zip(self._array_names, arrays, strict=True):
            single = isinstance(value.sharding, SingleDeviceSharding)
            local = value.sharding if single else _local_data(value).sharding
            groups.setdefault((single, local), {})[name] = value.dtype
        return [
            _Group(dtypes, self._picker([*dtypes]), single, sharding)
            for (single, sharding), dtypes in groups.items()
        ]

    def _picker(self, names: list[str]) -> Callable[[list[Any]], Sequence[Any]]:
        """What picks the values of these names."""
        positions = [self._positions[name] for name in names]
        if len(positions) > 1:
            return itemgetter(*positions)
        return lambda values: [values[i] for i in positions]

    def _check_unchecked(self, values: list[Any]) -> None:
        if self._unchecked:
            _check_values({name: values[self._positions[name]] for name in self._unchecked}, True)


@final
class _Group:
    """Arrays of one device: one compiled program copies all of them, into a vector a dtype."""

    def __init__(
        self,
        dtypes: Mapping[str, Any],
        pick: Callable[[list[Any]], Sequence[Any]],
        single: bool,
        sharding: Sharding,
    ) -> None:
        self._pick = pick
        self._single = single
        names = tuple(dtypes)
        groups = _by_dtype(dtypes.values())
        self._names = [tuple(names[i] for i in positions) for positions in groups]
        self._stack = _program(tuple(dtypes.values()), sharding)

    def fetch(self, values: list[Any]) -> list[tuple[tuple[str, ...], jax.Array]]:
        """Names and vector of each dtype."""
        picked = self._pick(values)
        # `addressable_data` takes longer than all else here.
        arrays = picked if self._single else map(_local_data, picked)
        # JAX adds its options to `config` at run time.
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            # It debugs the user's step; what is compiled already cannot be called there.
            with jax.disable_jit(False):
                vectors = self._stack(*arrays)
        else:
            vectors = self._stack(*arrays)
        for vector in vectors:
            vector.copy_to_host_async()
        return list(zip(self._names, vectors, strict=True))


@functools.lru_cache(_MAX_PROGRAMS)
def _program(dtypes: tuple[Any, ...], sharding: Sharding) -> jax.stages.Compiled:
    """A compiled function that stacks scalars on one device, whatever their names."""

    def stack(*scalars: jax.Array) -> list[jax.Array]:
        return [jnp.stack([scalars[i] for i in positions]) for positions in _by_dtype(dtypes)]

    def make() -> jax.stages.Compiled:
        with jax.enable_x64(True):
            like = [jax.ShapeDtypeStruct((), dtype, sharding=sharding) for dtype in dtypes]
            # Compiled ahead of time: `jit` would trace again for each mix of weak types.
            return jax.jit(stack).lower(*like).compile()

    # In another thread, since a mesh that the training has set, or a trace that it is in, belongs
    # to its own thread. With neither, `jax.jit` would be as fast.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(make).result()


def _by_dtype(dtypes: Iterable[Any]) -> list[list[int]]:
    """The positions of the values of each dtype."""
    positions: dict[Any, list[int]] = {}
    for i, dtype in enumerate(dtypes):
        positions.setdefault(dtype, []).append(i)
    return [*positions.values()]


def _split_reduced(metrics: Any) -> tuple[Any, dict[str, Reduced]]:
    """A row without what `reduce` returned, and that by the prefix of its names."""
    if not isinstance(metrics, Mapping) or Reduced not in map(type, metrics.values()):
        return metrics, {}
    reduced = {name: value for name, value in metrics.items() if type(value) is Reduced}
    return {name: value for name, value in metrics.items() if name not in reduced}, reduced


def _names(prefix: str, reduced: Reduced) -> tuple[str, ...]:
    """The names of reduced metrics behind their prefix."""
    return tuple(f"{prefix}/{name}" for name in reduced.names)


def _check_values(metrics: Mapping[str, Any], here: bool) -> None:
    """Check the values of a row, see `Fetcher.fetch`; waits for nothing."""
    for name, value in metrics.items():
        if isinstance(value, jax.Array):
            check_array(name, value, value.shape, here)
        elif isinstance(value, int):
            if abs(value) > sys.float_info.max:
                # Not the value itself: Python refuses to print more than 4300 digits.
                raise ValueError(
                    f"metric {name!r} is an integer of {value.bit_length()} bits, more than a "
                    "float holds. Log its logarithm."
                )
        elif not isinstance(value, (float, np.integer, np.floating, np.bool_)):
            array = np.asarray(value) if hasattr(value, "__array__") else None
            if array is None or not _is_real(array.dtype):
                raise TypeError(
                    f"metric {name!r} is {value!r} of type {type(value).__name__}; metrics are "
                    "real numbers. Use float(value), or log it as a hyperparameter."
                )
            _check_shape(name, array.shape)


def check_array(name: str, value: jax.Array, shape: tuple[int, ...], here: bool) -> None:
    if isinstance(value, Tracer):
        raise TypeError(
            f"metric {name!r} belongs to a trace: `log` was called inside compiled code, where it "
            "would run once, while tracing. Return the value from the step and log it outside, or "
            "use `LoggingCallback` inside."
        )
    if value.is_deleted():
        raise ValueError(
            f"metric {name!r} was deleted: it has been donated to a step. Log it before that."
        )
    if not (value.is_fully_addressable or value.is_fully_replicated):
        raise ValueError(
            f"metric {name!r} is sharded over processes: shape {value.shape}, sharding "
            f"{value.sharding}; this process holds a part only. Reduce it in the compiled step, "
            "with `jnp.mean` on global arrays or with `lerax_dist.reduce` inside `shard_map`."
        )
    holders = sorted({device.process_index for device in value.sharding.device_set})
    # A value of this process alone may be one that each process has for itself: only process 0 can
    # tell that it has none.
    writer = jax.process_index() if here else 0
    if not value.is_fully_addressable and writer not in holders:
        raise ValueError(
            f"metric {name!r} is addressable only on processes {holders}, not on the "
            "process that writes it. Replicate it on all processes first, e.g. with "
            "`jax.experimental.multihost_utils.broadcast_one_to_all`."
        )
    _check_shape(name, shape)
    if not _is_real(value.dtype):
        raise TypeError(
            f"metric {name!r} has dtype {value.dtype}; metrics are real numbers. "
            "Log e.g. its absolute value."
        )


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if shape != ():
        raise ValueError(
            f"metric {name!r} must be a scalar, got shape {shape}. Reduce it first, e.g. with "
            "`.mean()`."
        )


@functools.cache
def _is_real(dtype: Any) -> bool:
    # By JAX: for NumPy bfloat16 is not a floating type.
    kinds = (np.bool_, np.integer, np.floating)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
