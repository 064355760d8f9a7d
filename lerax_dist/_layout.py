"""Which metrics a row has, remembered from the one before. Pure, and without jax."""

from collections.abc import Mapping
from typing import Any, final


@final
class Layout:
    """Names and types of nested metrics, to be known again without looking at each of them.

    Python compares whole tuples of names and types here, so a row of a known layout costs no
    bytecode for each metric, only for each nested mapping.

    Args:
        metrics: metrics that `flatten` has passed.
    """

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self._keys = tuple(metrics)
        self._types = (type(metrics), *map(type, metrics.values()))
        self._nested = [
            (key, Layout(value)) for key, value in metrics.items() if isinstance(value, Mapping)
        ]

    def names(self, prefix: str = "") -> list[str]:
        """Flat names of the values that `values` gives, in its order."""
        nested = {key for key, _ in self._nested}
        found = ["" if key in nested else prefix + key for key in self._keys]
        for key, layout in self._nested:
            found += layout.names(f"{prefix}{key}/")
        return found

    def values(self, metrics: Any) -> list[Any] | None:
        """The values of a row; `None` if it has other names or types than this.

        A nested mapping is among them, under an empty name, before what it holds.
        """
        if type(metrics) is not self._types[0] or tuple(metrics) != self._keys:
            return None
        values = list(metrics.values())
        if (type(metrics), *map(type, values)) != self._types:
            return None
        for key, layout in self._nested:
            inner = layout.values(metrics[key])
            if inner is None:
                return None
            values += inner
        return values
