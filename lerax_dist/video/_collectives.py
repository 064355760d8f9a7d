"""Whether a traced program talks to other devices. Pure."""

from collections.abc import Iterator
from typing import Any

# They take names of axes, too, but no other device has to take part.
_LOCAL = {"axis_index", "pvary", "pcast"}


def find_collective(jaxpr: Any) -> str | None:
    """Name of the first collective over named axes in a traced program, at any depth.

    Args:
        jaxpr: the program.

    Returns:
        The name of the primitive; `None` if there is none.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name not in _LOCAL and any(_axis_names(equation.params)):
            return name
        for inner in _inner(equation.params):
            found = find_collective(inner)
            if found is not None:
                return found
    return None


def _axis_names(params: dict[str, Any]) -> Iterator[str]:
    for key in ("axes", "axis_name"):
        names = params.get(key, ())
        # `axes` of a reduction within one device are numbers.
        for name in names if isinstance(names, (tuple, list, frozenset)) else (names,):
            if isinstance(name, str):
                yield name


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one
