"""From a plain loop to the host: values that another thread may read without any device work."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter, methodcaller
from typing import Any, final

import jax
import numpy as np
from jax import numpy as jnp

from lerax_dist._layout import Layout
from lerax_dist._metrics import flatten
from lerax_dist.device._check import check_metrics, check_vector, is_single
from lerax_dist.device._reduced import Reduced

# Rows of training and of evaluation take turns.
_MOST_PLANS = 8
# Their types say all that there is to check.
_FIXED = (bool, int, float, np.bool_, np.integer, np.floating)

_local_data = methodcaller("addressable_data", 0)
_aval = attrgetter("aval")


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
            ValueError: a value is not a scalar, is sharded over processes, or was donated; or two
                names are the same once joined.
            TypeError: a value is not a number, or belongs to a trace; or a name is not a string.
        """
        if type(metrics) is Reduced:
            self._look_at(None, metrics)
            return metrics.names, {}, [(metrics.names, metrics.vector)]
        rest, reduced = _apart(metrics)
        if not reduced:
            return self._fetch(rest)
        for prefix, each in reduced.items():
            self._look_at(prefix, each)
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
                    return plan.fetch(values)
                except Exception:
                    # An array of another shape, dtype or place than the one the plan was made for,
                    # or one that is gone: whatever it is, it is found out below.
                    self._plans = tuple(other for other in self._plans if other is not plan)
                break
        plan = self._keep(metrics)
        values = plan.layout.values(metrics)
        assert values is not None
        return plan.fetch(values)

    def check(self, metrics: Mapping[str, Any]) -> None:
        """What `fetch` raises, where nothing is to be fetched."""
        if type(metrics) is Reduced:
            return self._look_at(None, metrics)
        rest, reduced = _apart(metrics)
        for prefix, each in reduced.items():
            self._look_at(prefix, each)
        others = self._check(rest) if rest or not reduced else ()
        if reduced:
            names = (*others, *(name for each in reduced.items() for name in _names(*each)))
            if len(set(names)) < len(names):
                flatten(metrics)

    def _check(self, metrics: Mapping[str, Any]) -> tuple[str, ...]:
        for plan in self._plans:
            values = plan.layout.values(metrics)
            if values is not None and plan.fits(values):
                return plan.names
        return self._keep(metrics).names

    def _look_at(self, prefix: str | None, reduced: Reduced) -> None:
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
            check_vector(names, vector)
            self._known.add((prefix, names))
        self._last = prefix, names

    def _keep(self, metrics: Mapping[str, Any]) -> "_Plan":
        flat = flatten(metrics)
        check_metrics(flat)
        plan = _Plan(metrics, flat)
        self._plans = (plan, *self._plans[: _MOST_PLANS - 1])
        return plan


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
        places = {name: place for place, name in enumerate(self.layout.names()) if name}
        arrays = {name: value for name, value in flat.items() if isinstance(value, jax.Array)}
        numbers = [name for name in flat if name not in arrays]
        self._doubtful = [(n, places[n]) for n in numbers if not isinstance(flat[n], _FIXED)]
        self._number_names = tuple(numbers)
        self._numbers = _picker([places[name] for name in numbers])
        self._arrays = _picker([places[name] for name in arrays])
        self._avals = tuple(map(_aval, arrays.values()))
        groups: dict[Any, dict[str, jax.Array]] = {}
        for name, value in arrays.items():
            whole = is_single(value)
            local = value if whole else _local_data(value)
            groups.setdefault((whole, local.sharding), {})[name] = local
        self._groups = [
            _Group(group, _picker([places[name] for name in group]), whole)
            for (whole, _), group in groups.items()
        ]

    def fits(self, values: list[Any]) -> bool:
        """Whether arrays have the shapes and dtypes that the plan was made for."""
        self._check_doubtful(values)
        return tuple(map(_aval, self._arrays(values))) == self._avals

    def fetch(self, values: list[Any]) -> Fetched:
        """Take over the values that the layout has found."""
        self._check_doubtful(values)
        numbers = dict(zip(self._number_names, map(float, self._numbers(values)), strict=True))
        arrays: list[tuple[tuple[str, ...], jax.Array]] = []
        for group in self._groups:
            arrays += group.fetch(values)
        return self.names, numbers, arrays

    def _check_doubtful(self, values: list[Any]) -> None:
        if self._doubtful:
            check_metrics({name: values[place] for name, place in self._doubtful})


@final
class _Group:
    """Arrays of one device: a compiled program copies all of them, one vector a dtype."""

    def __init__(
        self,
        arrays: Mapping[str, jax.Array],
        pick: Callable[[list[Any]], Sequence[Any]],
        whole: bool,
    ) -> None:
        self._pick = pick
        self._whole = whole
        by_dtype: dict[Any, list[int]] = {}
        for place, value in enumerate(arrays.values()):
            by_dtype.setdefault(value.dtype, []).append(place)
        names = tuple(arrays)
        self._names = [tuple(names[place] for place in places) for places in by_dtype.values()]

        def stack(*scalars: jax.Array) -> list[jax.Array]:
            return [jnp.stack([scalars[place] for place in places]) for places in by_dtype.values()]

        # Compiled here and now: `jit` would trace again for each mix of weak types.
        self._stack = jax.jit(stack).lower(*arrays.values()).compile()

    def fetch(self, values: list[Any]) -> list[tuple[tuple[str, ...], jax.Array]]:
        """Names and vector of each dtype."""
        picked = self._pick(values)
        # `addressable_data` takes longer than all else here.
        vectors = self._stack(*(picked if self._whole else map(_local_data, picked)))
        for vector in vectors:
            vector.copy_to_host_async()
        return list(zip(self._names, vectors, strict=True))


def _apart(metrics: Any) -> tuple[Any, dict[str, Reduced]]:
    """What `reduce` gave, by what goes before its names, apart from all else."""
    if not isinstance(metrics, Mapping) or Reduced not in map(type, metrics.values()):
        return metrics, {}
    reduced = {name: value for name, value in metrics.items() if type(value) is Reduced}
    return {name: value for name, value in metrics.items() if name not in reduced}, reduced


def _picker(places: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """What picks the values at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[place] for place in places]


def _names(prefix: str, reduced: Reduced) -> tuple[str, ...]:
    """The names of reduced metrics with what goes before them."""
    return tuple(f"{prefix}/{name}" for name in reduced.names)
