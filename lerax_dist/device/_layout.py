"""Names and values of the metrics of a plain loop: any pytree, known again by its layout."""

import dataclasses
from collections.abc import Mapping
from typing import Any, final

import jax
import numpy as np

from lerax_dist.device._pack import Reduced
from lerax_dist.device._partials import AbstractPartial

# Values of these types hold no others; they are recognized before all else, for speed.
_VALUES = (jax.Array, int, float, np.generic, np.ndarray, str, complex, Reduced, AbstractPartial)


@final
class Layout:
    """Names and types of the metrics of a row, to recognize the next row that has the same.

    Whole tuples of names and types are compared, so recognizing a row costs bytecode for each
    nested container only, not for each metric.

    Attributes:
        size: how many values `values` gives.
    """

    def __init__(self, metrics: Any) -> None:
        self._keys, values = contents(metrics) or ((), [])
        self._types = (type(metrics), *map(type, values))
        self._is_mapping = isinstance(metrics, Mapping)
        self._nested = [
            (i, Layout(value)) for i, value in enumerate(values) if contents(value) is not None
        ]
        self.size = len(values) + sum(layout.size for _, layout in self._nested)

    def entries(self, prefix: str = "", first: int = 0) -> list[tuple[str | None, int]]:
        """Flat name of each value that is no container, `None` for an empty one, in the order of
        the row; and its place in `values`, whose first is `first`."""
        after = first + len(self._keys)
        nested: dict[int, list[tuple[str | None, int]]] = {}
        found: list[tuple[str | None, int]] = []
        for i, layout in self._nested:
            nested[i] = layout.entries(f"{prefix}{self._keys[i]}/", after)
            after += layout.size
        for i, key in enumerate(self._keys):
            name = str(key)
            found += nested.get(i, [(prefix + name, first + i)]) if name else [(None, first + i)]
        return found

    def values(self, metrics: Any) -> list[Any] | None:
        """The values of a row; `None` if its names or types differ.

        Nested containers are among them, before the values of the first of them.
        """
        if type(metrics) is not self._types[0]:
            return None
        if self._is_mapping:
            keys, values = tuple(metrics), list(metrics.values())
        else:
            keys, values = contents(metrics) or ((), [])
        if keys != self._keys or (type(metrics), *map(type, values)) != self._types:
            return None
        own = values
        for i, layout in self._nested:
            inner = layout.values(own[i])
            if inner is None:
                return None
            values = values + inner
        return values


def contents(value: Any) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Keys and values of a mapping, a dataclass or a pytree; `None` for anything else."""
    if isinstance(value, _VALUES):
        return None
    if isinstance(value, Mapping):
        return tuple(value), list(value.values())
    # One level of it. JAX knows which fields of Flax structs and Equinox modules are static.
    found, _ = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda each: each is not value)
    if found and not found[0][0]:
        if isinstance(value, type) or not dataclasses.is_dataclass(value):
            return None
        keys = tuple(field.name for field in dataclasses.fields(value))
        return keys, [getattr(value, key) for key in keys]
    keys = tuple(jax.tree_util.keystr(path, simple=True) for path, _ in found)
    return keys, [each for _, each in found]
