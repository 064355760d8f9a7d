"""Hyperparameters: checked, flattened, and read from the fields of Equinox modules."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def extract(module: Any, prefix: str) -> dict[str, Any]:
    """Numbers, strings and booleans among the fields of a module and of the modules in it.

    Arrays, private fields (with a leading `_`) and everything else are left out, also a module that
    is no dataclass; a list or tuple of numbers becomes its text. Names are dotted, behind a prefix.
    """
    if not dataclasses.is_dataclass(module) or isinstance(module, type):
        return {}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, None)
        if field.name.startswith("_"):
            continue
        name = f"{prefix}.{field.name}"
        if isinstance(value, (bool, int, float, str)):
            found[name] = value
        elif isinstance(value, (list, tuple)) and value:
            if all(isinstance(member, (bool, int, float)) for member in value):
                found[name] = str(value)
        else:
            found |= extract(value, name)
    return found


def check_hparams(hparams: Any) -> dict[str, Any]:
    """Hyperparameters, flat; raises if they are not a mapping from strings."""
    if hparams is None:
        return {}
    if not isinstance(hparams, Mapping):
        raise TypeError(
            f"`hparams` must be a mapping of names to values, got {hparams!r}. Use e.g. vars(args)."
        )
    flat: dict[str, Any] = {}
    for key, value in hparams.items():
        if not isinstance(key, str):
            raise TypeError(
                f"`hparams` has the name {key!r}; names must be strings. Use {str(key)!r}."
            )
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in check_hparams(value).items()}
        else:
            flat[key] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """A number, string or boolean (or a list of them) as it is, an array as its numbers, anything
    else as its text: backends and the journal get plain values only."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)
