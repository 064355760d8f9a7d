"""Names of metrics: nested mappings become flat `group/name` keys. Without jax."""

from collections.abc import Mapping
from typing import Any, final


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested metrics by their flat names, joined with `/` and behind a prefix, in their order.

    Raises:
        TypeError: if `metrics` is not a mapping, or a name in it is not a string.
        ValueError: if a name is empty, or two names are the same once joined.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"`metrics` must be a mapping of names to values, got {metrics!r}. "
            'Name the value, as in `{"train/loss": loss}`.'
        )
    flat: dict[str, Any] = {}
    where = f" below {prefix!r}" if prefix else ""
    for key, value in metrics.items():
        if not isinstance(key, str):
            raise TypeError(
                f"`metrics` has the name {key!r} of type {type(key).__name__}{where}; names are "
                f"strings. Use {str(key)!r}."
            )
        if not key:
            raise ValueError(f"`metrics` has an empty name{where}. Give each value a name.")
        name = f"{prefix}/{key}" if prefix else key
        found = flatten(value, name) if isinstance(value, Mapping) else {name: value}
        twice = flat.keys() & found.keys()
        if twice:
            raise ValueError(
                f"`metrics` has the name {min(twice)!r} twice once nested names are joined with "
                "'/'. Rename one of them."
            )
        flat |= found
    return flat


@final
class Layout:
    """Names and types of the metrics of a row, to recognize the next row that has the same.

    Whole tuples of names and types are compared, so recognizing a row costs bytecode for each
    nested mapping only, not for each metric.
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
        """The values of a row; `None` if its names or types differ.

        A nested mapping is among them, under an empty name, before its own values.
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
