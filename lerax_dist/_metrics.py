"""Names of metrics: nested mappings become flat `group/name` keys. Pure, and without jax."""

from collections.abc import Mapping
from typing import Any


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flat names of nested metrics, joined with `/`.

    Args:
        metrics: mapping of names to values or to mappings like itself.
        prefix: what every name starts with, without the `/` that follows it.

    Returns:
        Flat name to value, in the order of the mapping.

    Raises:
        TypeError: `metrics` is no mapping, or a name in it is not a string.
        ValueError: a name is empty, or two names are the same once joined.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"`metrics` must be a mapping of names to values, got {metrics!r}. "
            'Name the value, as in `{"train/loss": loss}`.'
        )
    flat: dict[str, Any] = {}
    _gather(metrics, prefix, flat)
    return flat


def _gather(metrics: Mapping[Any, Any], prefix: str, flat: dict[str, Any]) -> None:
    for key, value in metrics.items():
        if not isinstance(key, str):
            where = f" below {prefix!r}" if prefix else ""
            raise TypeError(
                f"`metrics` has the name {key!r} of type {type(key).__name__}{where}; names are "
                f"strings. Use {str(key)!r}."
            )
        if not key:
            where = f" below {prefix!r}" if prefix else ""
            raise ValueError(f"`metrics` has an empty name{where}. Give each value a name.")
        name = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            _gather(value, name, flat)
        elif name in flat:
            raise ValueError(
                f"`metrics` has the name {name!r} twice once nested names are joined with '/'. "
                "Rename one of them."
            )
        else:
            flat[name] = value
