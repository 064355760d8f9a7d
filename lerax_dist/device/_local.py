"""Values that a process has for itself, from a plain loop: its partials, and samples."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

import jax
import numpy as np

from lerax_dist._metric_names import flatten
from lerax_dist._schema import LocalPartial, PartialSpec
from lerax_dist.device._fetch import check_array
from lerax_dist.device._pack import Reduced, number_length
from lerax_dist.device._partials import AbstractPartial

# Types that are neither partials nor mappings to look into, so that a usual row costs no look at
# each value.
plain_types: set[type] = {Reduced}


def has_partials(metrics: Any) -> bool:
    """Whether some of the metrics of a row are partials."""
    if type(metrics) is Reduced or not isinstance(metrics, Mapping):
        return False
    kinds = {*map(type, metrics.values())} - plain_types
    if not kinds:
        return False
    plain_types.update(k for k in kinds if not issubclass(k, (AbstractPartial, Mapping)))
    inner = [v for v in metrics.values() if type(v) not in plain_types]
    return any(isinstance(v, AbstractPartial) or has_partials(v) for v in inner)


def split_partials(
    metrics: Mapping[str, Any], is_first: bool, prefix: str = ""
) -> tuple[dict[str, Any], list[LocalPartial]]:
    """A row without its partials, and these; waits for nothing.

    `is_first` is whether this is process 0. A partial of arrays that all processes share, as they
    come out of a step that spans them, counts once.

    Raises:
        ValueError: if an array is sharded over processes, is held by others only, or was donated.
        TypeError: if an array belongs to a trace.
    """
    rest: dict[str, Any] = {}
    partials: list[LocalPartial] = []
    for key, value in metrics.items():
        if isinstance(value, AbstractPartial):
            (name,) = flatten({key: None}, prefix)
            partials.append(_take(name, value, is_first))
        elif isinstance(value, Mapping) and type(value) is not Reduced:
            rest[key], found = split_partials(value, is_first, f"{prefix}/{key}" if prefix else key)
            partials += found
        else:
            rest[key] = value
    return rest, partials


def check_distinct(
    metrics: Mapping[str, Any], names: Sequence[str], partials: Sequence[LocalPartial]
) -> None:
    """Raise a `ValueError` if a partial has the name of another metric once names are joined."""
    if len({*names, *(each.spec.name for each in partials)}) < len(names) + len(partials):
        flatten(metrics)  # Raises, and names the duplicate.


def _take(name: str, partial: AbstractPartial, is_first: bool) -> LocalPartial:
    leaves, tree = jax.tree.flatten(partial)
    is_shared = False
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, jax.Array):
            check_array(name, leaf, (), True)
            if not leaf.is_fully_addressable:
                leaves[i], is_shared = leaf.addressable_data(0), True
    partial = jax.tree.unflatten(tree, leaves)
    own_maxima = partial.maxima()
    own_sums = partial.sums(own_maxima, cast(jax.Array, is_first))
    sums, maxima = [*map(_kept, own_sums)], [*map(_kept, own_maxima)]
    if is_shared and not is_first:
        sums = [_kept(np.zeros(np.shape(each))) for each in sums]
    lengths = [tuple(number_length(name, each) for each in some) for some in (sums, maxima)]
    kind = type(partial)
    spec = PartialSpec(name, kind.finish, kind.shift, lengths[0], lengths[1], 1)
    return LocalPartial(spec, sums, maxima)


def local_values(
    metrics: Mapping[str, Any], wanted: Set[str], prefix: str = ""
) -> list[tuple[tuple[str, ...], Any]]:
    """Names and values of those of some metrics that this process may have for itself."""
    if type(metrics) is Reduced:
        pairs = [(tuple(f"{prefix}{name}" for name in metrics.names), metrics.vector)]
    else:
        pairs = [((f"{prefix}{name}",), value) for name, value in metrics.items()]
    found: list[tuple[tuple[str, ...], Any]] = []
    for names, value in pairs:
        if isinstance(value, Mapping):
            found += local_values(value, wanted, f"{names[0]}/")
        elif not wanted.isdisjoint(names):
            if not isinstance(value, jax.Array) or value.is_fully_addressable:
                found.append((names, _kept(value)))
    return found


def _kept(value: Any) -> jax.Array:
    """A number as it is now: the caller may donate an array to the next step."""
    if not isinstance(value, jax.Array):
        return cast(jax.Array, np.asarray(value))
    copy = value.copy()
    copy.copy_to_host_async()
    return copy
