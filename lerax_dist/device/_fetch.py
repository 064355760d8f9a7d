"""From a plain loop to the host: values that another thread may read without any device work."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, final

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import Sharding, SingleDeviceSharding

from lerax_dist._layout import Layout
from lerax_dist._metrics import flatten
from lerax_dist.device._check import check_metrics, check_vector
from lerax_dist.device._reduced import Reduced

# Rows of training and of evaluation take turns, often with names for each task.
_MOST_PLANS = 32
# They are shared by rows with as many arrays of the same dtypes, and take long to make.
_MOST_PROGRAMS = 128
# Their types say all that there is to check.
_FIXED = (bool, int, float, np.bool_, np.integer, np.floating)

_local_data = methodcaller("addressable_data", 0)
_is_deleted = methodcaller("is_deleted")
_kind = attrgetter("aval", "sharding")


# The metrics of a row: names of all, in their order; those that are numbers already; and the rest:
# names, and a vector of their values: what `reduce` gave, or a copy on one device whose way to the
# host is under way. No class of its own: to make one would be a sixth of what `Logger.log` costs.
Fetched = tuple[tuple[str, ...], dict[str, Any], list[tuple[tuple[str, ...], jax.Array]]]


@final
class Fetcher:
    """Takes rows of metrics over from the thread that trains, at little cost to it.

    The first row of a kind is looked at metric by metric; what is found out is kept for the next
    rows with the same names and types.
    """

    def __init__(self) -> None:
        self._plans: tuple[_Plan, ...] = ()
        self._known: set[tuple[str | None, tuple[str, ...]]] = set()
        # The names of the last reduced metrics: a compiled step gives the same object each time.
        self._last: tuple[str | None, tuple[str, ...]] = (None, ())

    def fetch(self, metrics: Mapping[str, Any]) -> Fetched:
        """Take the values of a row over as they are now; waits for nothing.

        Arrays are copied, on their device and all at once: the caller may donate them to the next
        step. What is read is one device's copy of a value that is whole there, so this is no
        collective. What `reduce` gave is nobody's state, and is kept as it is.

        Raises:
            ValueError: a value is not a scalar, is sharded over processes, lies on others, or was
                donated; or two names are the same once joined.
            TypeError: a value is not a number, or belongs to a trace; or a name is not a string.
        """
        if type(metrics) is Reduced:
            self._look_at(None, metrics, True)
            return metrics.names, {}, [(metrics.names, metrics.vector)]
        rest, reduced = _apart(metrics)
        if not reduced:
            return self._fetch(rest)
        for prefix, each in reduced.items():
            self._look_at(prefix, each, True)
        whole = [(_names(prefix, each), each.vector) for prefix, each in reduced.items()]
        if not rest and len(whole) == 1:
            return whole[0][0], {}, whole
        others, numbers, arrays = self._fetch(rest) if rest else ((), {}, [])
        names = (*others, *(name for names, _ in whole for name in names))
        if len(set(names)) < len(names):
            flatten(metrics)  # Says which name is there twice.
        return names, numbers, arrays + whole

    def _fetch(self, metrics: Mapping[str, Any]) -> Fetched:
        for plan in self._plans:
            values = plan.layout.values(metrics)
            if values is not None:
                try:
                    fetched = plan.fetch(values)
                except Exception:
                    # An array of another shape, dtype or place than the one the plan was made for,
                    # or one that is gone: whatever it is, it is found out below.
                    continue
                if plan is not self._plans[0]:
                    self._remember(plan)
                return fetched
        plan, values = self._plan(metrics, True)
        fetched = plan.fetch(values)
        self._remember(plan)
        return fetched

    def check(self, metrics: Mapping[str, Any]) -> None:
        """What `fetch` raises on process 0, where nothing is to be fetched."""
        if type(metrics) is Reduced:
            return self._look_at(None, metrics, False)
        rest, reduced = _apart(metrics)
        for prefix, each in reduced.items():
            self._look_at(prefix, each, False)
        others = self._check(rest) if rest or not reduced else ()
        if reduced:
            names = (*others, *(name for each in reduced.items() for name in _names(*each)))
            if len(set(names)) < len(names):
                flatten(metrics)

    def _check(self, metrics: Mapping[str, Any]) -> tuple[str, ...]:
        for plan in self._plans:
            values = plan.layout.values(metrics)
            if values is not None and plan.fits(values):
                break
        else:
            plan, _ = self._plan(metrics, False)
        if not self._plans or plan is not self._plans[0]:
            self._remember(plan)
        return plan.names

    def _look_at(self, prefix: str | None, reduced: Reduced, here: bool) -> None:
        """Check reduced metrics with names that were not there before, or that are gone."""
        last, names, vector = self._last, reduced.names, reduced.vector
        try:
            gone = vector.is_deleted()
        except jax.errors.ConcretizationTypeError:
            gone = True  # It belongs to a trace.
        if last[1] is names and last[0] == prefix and not gone:
            return
        if (prefix, names) not in self._known or gone:
            if prefix is not None:
                flatten({prefix: None})  # Says what is wrong with a name.
            check_vector(names, vector, here)
            self._known.add((prefix, names))
        self._last = prefix, names

    def _plan(self, metrics: Mapping[str, Any], here: bool) -> tuple["_Plan", list[Any]]:
        """A new plan, and the values of its first row."""
        flat = flatten(metrics)
        check_metrics(flat, here)
        plan = _Plan(metrics, flat)
        values = plan.layout.values(metrics)
        assert values is not None
        return plan, values

    def _remember(self, plan: "_Plan") -> None:
        """The plan that was used last is the first; that not used for longest is forgotten."""
        others = [other for other in self._plans if other is not plan]
        self._plans = (plan, *others[: _MOST_PLANS - 1])


@final
class _Plan:
    """How rows of one layout are taken over.

    Attributes:
        layout: which rows those are.
        names: their metrics.
    """

    def __init__(self, metrics: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
        self.layout = Layout(metrics)
        self.names = tuple(flat)
        self._places = {name: place for place, name in enumerate(self.layout.names()) if name}
        self._array_names = [name for name in flat if isinstance(flat[name], jax.Array)]
        self._number_names = [name for name in flat if not isinstance(flat[name], jax.Array)]
        self._doubtful = [n for n in self._number_names if not isinstance(flat[n], _FIXED)]
        self._numbers = self._picker(self._number_names)
        self._arrays = self._picker(self._array_names)
        self._kinds = tuple(_kind(flat[name]) for name in self._array_names)
        # Not made before they are needed: a process that does not write needs none.
        self._groups: list[_Group] | None = None

    def fits(self, values: list[Any]) -> bool:
        """Whether arrays are of the kinds and in the places that the plan was made for."""
        self._check_doubtful(values)
        arrays = self._arrays(values)
        return tuple(map(_kind, arrays)) == self._kinds and not any(map(_is_deleted, arrays))

    def fetch(self, values: list[Any]) -> Fetched:
        """Take over the values that the layout has found."""
        self._check_doubtful(values)
        numbers = dict(zip(self._number_names, map(float, self._numbers(values)), strict=True))
        arrays: list[tuple[tuple[str, ...], jax.Array]] = []
        if self._groups is None:
            self._groups = self._grouped(self._arrays(values))
        for group in self._groups:
            arrays += group.fetch(values)
        return self.names, numbers, arrays

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
        places = [self._places[name] for name in names]
        if len(places) > 1:
            return itemgetter(*places)
        return lambda values: [values[place] for place in places]

    def _check_doubtful(self, values: list[Any]) -> None:
        if self._doubtful:
            check_metrics({name: values[self._places[name]] for name in self._doubtful}, True)


@final
class _Group:
    """Arrays of one device: a compiled program copies all of them, one vector a dtype."""

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
        alike = _alike(dtypes.values())
        self._names = [tuple(names[place] for place in places) for places in alike]
        self._stack = _program(tuple(dtypes.values()), sharding)

    def fetch(self, values: list[Any]) -> list[tuple[tuple[str, ...], jax.Array]]:
        """Names and vector of each dtype."""
        picked = self._pick(values)
        # `addressable_data` takes longer than all else here.
        vectors = self._stack(*(picked if self._single else map(_local_data, picked)))
        for vector in vectors:
            vector.copy_to_host_async()
        return list(zip(self._names, vectors, strict=True))


@functools.lru_cache(_MOST_PROGRAMS)
def _program(dtypes: tuple[Any, ...], sharding: Sharding) -> jax.stages.Compiled:
    """What stacks scalars in one place, whatever their names."""

    def stack(*scalars: jax.Array) -> list[jax.Array]:
        return [jnp.stack([scalars[place] for place in places]) for places in _alike(dtypes)]

    def make() -> jax.stages.Compiled:
        with jax.enable_x64(True):
            like = [jax.ShapeDtypeStruct((), dtype, sharding=sharding) for dtype in dtypes]
            # Compiled here and now: `jit` would trace again for each mix of weak types.
            return jax.jit(stack).lower(*like).compile()

    # A mesh that the training has set, or a trace that it is in, is of its thread alone.
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(make).result()


def _alike(dtypes: Iterable[Any]) -> list[list[int]]:
    """The places of each dtype."""
    places: dict[Any, list[int]] = {}
    for place, dtype in enumerate(dtypes):
        places.setdefault(dtype, []).append(place)
    return [*places.values()]


def _apart(metrics: Any) -> tuple[Any, dict[str, Reduced]]:
    """What `reduce` gave, by what goes before its names, apart from all else."""
    if not isinstance(metrics, Mapping) or Reduced not in map(type, metrics.values()):
        return metrics, {}
    reduced = {name: value for name, value in metrics.items() if type(value) is Reduced}
    return {name: value for name, value in metrics.items() if name not in reduced}, reduced


def _names(prefix: str, reduced: Reduced) -> tuple[str, ...]:
    """The names of reduced metrics with what goes before them."""
    return tuple(f"{prefix}/{name}" for name in reduced.names)
