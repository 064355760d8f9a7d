"""Hyperparameters: any configuration as flat, plain values, the same in each launch.

Libraries are recognized by what their objects have (`__attrs_attrs__`, `model_fields`, `shape` and
`dtype`): none of them is imported.
"""

import argparse
import dataclasses
import enum
import functools
import math
import os
import re
import sys
import types
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from lerax_dist._secrets import mask_value

# Numbers of an array that are written; a longer one is described by dtype and shape.
_MAX_NUMBERS = 64
# Levels of nesting; what is deeper is written as its text.
_MAX_DEPTH = 32
# An address differs in each launch.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def extract(module: Any, prefix: str) -> dict[str, Any]:
    """Numbers, strings and booleans among the fields of a module and of the modules in it.

    Arrays, private fields (with a leading `_`) and everything else are left out, also a module that
    is no dataclass; a list or tuple of numbers becomes its text. Names are dotted, behind a prefix.
    """
    if not dataclasses.is_dataclass(module) or isinstance(module, type):
        return {}
    found: dict[str, Any] = {}
    # Fields that do not show, as `parent` of a Flax module, lead out of it.
    for field in (field for field in dataclasses.fields(module) if field.repr):
        value = getattr(module, field.name, None)
        if field.name.startswith("_"):
            continue
        name = f"{prefix}.{field.name}"
        if isinstance(value, (bool, int, float, str)):
            found[name] = mask_value(name, _plain(value))
        elif isinstance(value, (list, tuple)) and value:
            if all(isinstance(member, (bool, int, float)) for member in value):
                found[name] = _text(value)
        else:
            found |= extract(value, name)
    return found


def check_hparams(hparams: Any) -> dict[str, Any]:
    """Hyperparameters by dotted names: numbers, strings, booleans, None, and lists of these.

    Secrets are masked. A value that cannot be read becomes a text that says so; others are read.

    Raises:
        TypeError: if `hparams` is neither a mapping nor an object with fields.
    """
    if hparams is None:
        return {}
    members = None if isinstance(hparams, type) else _members(hparams)
    if members is None:
        raise TypeError(
            "`hparams` must be a mapping of names to values or an object with fields (a dataclass, "
            f"a namespace), got {_text(hparams)}. Use e.g. vars(args)."
        )
    flat: dict[str, Any] = {}
    for name, value in _flatten(members, "", (id(hparams),)):
        while name in flat:
            name += "_"
        flat[name] = mask_value(name, value)
    return flat


def _flatten(
    members: Mapping[Any, Any], prefix: str, above: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    """Dotted name and plain value of all that is below; `above` are the ids of what contains it."""
    for key in members:
        name = f"{prefix}{_text(key)}"
        try:
            value = members[key]
            inner = _members(value)
            if not inner or isinstance(value, functools.partial):
                yield name, _plain(value)
        except Exception as error:  # E.g. an interpolation of OmegaConf that leads nowhere.
            yield name, f"<not readable: {type(error).__name__}>"
            continue
        if inner and (id(value) in above or len(above) > _MAX_DEPTH):
            yield name, f"<{_qualified(type(value))}>"
        elif inner:
            yield from _flatten(inner, f"{name}.", (*above, id(value)))


def _members(value: Any) -> Mapping[Any, Any] | None:
    """What is inside of a value, by name or index; `None` if it is to be written as a whole."""
    kind = type(value)
    if isinstance(value, (str, bytes, int, float, enum.Enum, type, np.generic, np.dtype)):
        return None
    if isinstance(value, Mapping):
        return value
    if isinstance(value, functools.partial):
        return dict(enumerate(value.args)) | value.keywords
    if dataclasses.is_dataclass(value):
        return _fields(value, [field.name for field in dataclasses.fields(value) if field.repr])
    if hasattr(kind, "__attrs_attrs__"):
        return _fields(value, [field.name for field in kind.__attrs_attrs__ if field.repr])
    if isinstance(getattr(kind, "model_fields", None), Mapping):  # pydantic
        return _fields(value, [name for name, field in kind.model_fields.items() if field.repr])
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return _fields(value, kind._fields)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return None
    if isinstance(value, (Sequence, Set)):
        members = _in_order(value)
        # A list of plain values, and of lists of them, stays a list.
        return dict(enumerate(members)) if any(map(_members, members)) else None
    if callable(getattr(value, "items", None)) and callable(getattr(value, "keys", None)):
        return dict(value.items())  # `ml_collections.ConfigDict`
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        return vars(value)
    # An object that says nothing of itself, or a module of Flax's nnx.
    if hasattr(value, "__dict__") and not hasattr(value, "__qualname__"):
        if kind.__repr__ is object.__repr__ or hasattr(kind, "__nnx_repr__"):
            return _fields(value, vars(value))
    return None


def _fields(value: Any, names: Collection[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names if not name.startswith("_")}


def _in_order(value: Sequence[Any] | Set[Any]) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else sorted(value, key=_text)


def _plain(value: Any) -> Any:
    """A value as a whole: a number, a string, a boolean, None, or a list of them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum) and not isinstance(value, str):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, str):
        return str.__str__(value.value if isinstance(value, enum.Enum) else value)
    if isinstance(value, int):
        # Python writes no integer of more digits in decimal; its reader would refuse them.
        limit = sys.get_int_max_str_digits() or sys.int_info.default_max_str_digits
        return int(value) if value.bit_length() < 3 * limit else hex(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, type):
        inner = np.dtype(value) if issubclass(value, np.generic) else getattr(value, "dtype", None)
        return inner.name if isinstance(inner, np.dtype) else _qualified(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if not hasattr(value, "tolist") or getattr(value, "size", math.inf) > _MAX_NUMBERS:
            return f"{value.dtype}[{','.join(map(str, value.shape))}]"
        return _plain(value.tolist())
    if isinstance(value, functools.partial):
        return _plain(value.func)
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (bytes, bytearray)):
        return [_plain(member) for member in _in_order(value)]
    if hasattr(value, "__qualname__") or hasattr(value, "__name__"):
        return _qualified(value)
    return _text(value)


def _qualified(value: Any) -> str:
    """Where a function or a class is defined: the same in each launch."""
    name = getattr(value, "__qualname__", None) or value.__name__
    module = getattr(value, "__module__", None)
    return name if module in (None, "builtins") else f"{module}.{name}"


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:
        return f"<{_qualified(type(value))}>"
    return _ADDRESS.sub("", text)
