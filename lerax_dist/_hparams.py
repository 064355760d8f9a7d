"""Hyperparameters read off the fields of Equinox modules. Pure."""

import dataclasses
from typing import Any


def extract(module: Any, prefix: str) -> dict[str, Any]:
    """Numbers, strings and booleans among the fields of a module and of the modules in it.

    Arrays, private fields (with a leading `_`) and everything else are left out; a list or tuple
    of numbers becomes its text.

    Args:
        module: an Equinox module or any other dataclass; what is neither gives nothing.
        prefix: what each name starts with, joined with a dot.

    Returns:
        Dotted names to values.
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
