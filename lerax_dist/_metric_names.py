"""Names of metrics: nested mappings become flat `group/name` keys. Without jax."""

from collections.abc import Mapping
from typing import Any


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
