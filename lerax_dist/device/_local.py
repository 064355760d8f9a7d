"""Values that a process has for itself, from a plain loop: its partials, and samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lerax_dist._metric_names import flatten
from lerax_dist._schema import LocalPartial, PartialSpec
from lerax_dist.device._fetch import check_array
from lerax_dist.device._pack import Reduced, number_length
from lerax_dist.device._partials import AbstractPartial

# Arrays of a sample: each is copied on its device.
_MAX_ARRAYS = 16
# Types that are neither partials nor mappings, so that a usual row costs no look at each value.
_plain_types: set[type] = set()


def has_partials(metrics: Any) -> bool:
    """Whether some of the metrics of a row are partials."""
    if type(metrics) is Reduced or not isinstance(metrics, Mapping):
        return False
    kinds = {*map(type, metrics.values())} - _plain_types
    _plain_types.update(k for k in kinds if not issubclass(k, (AbstractPartial, Mapping)))
    if not kinds:
        return False
    return any(isinstance(v, AbstractPartial) or has_partials(v) for v in metrics.values())


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
            rest[key], found = split_partials(value, is_first, f"{prefix}/{key}".lstrip("/"))
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
    maxima = partial.maxima()
    sums = partial.sums(maxima, is_first)
    if is_shared and not is_first:
        sums = [np.zeros(np.shape(each)) for each in sums]
    sums, maxima = [*map(_kept, sums)], [*map(_kept, maxima)]
    lengths = [tuple(number_length(name, each) for each in some) for some in (sums, maxima)]
    kind = type(partial)
    return LocalPartial(PartialSpec(name, kind.finish, kind.shift, *lengths, 1), sums, maxima)


def local_values(metrics: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of some metrics that this process may have for itself."""
    flat = flatten(metrics)
    found: dict[str, Any] = {}
    arrays = 0
    for name in names:
        value = flat.get(name)
        if isinstance(value, jax.Array):
            arrays += 1
            if arrays > _MAX_ARRAYS or not value.is_fully_addressable:
                continue
        if value is not None:
            found[name] = _kept(value)
    return found


def _kept(value: Any) -> Any:
    """A number as it is now: the caller may donate an array to the next step."""
    if not isinstance(value, jax.Array):
        return np.asarray(value)
    copy = value.copy()
    copy.copy_to_host_async()
    return copy
