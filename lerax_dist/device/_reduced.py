"""Reduced metrics, which leave a compiled step as one array. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Self, final

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist.device._stack import stack


@final
@jax.tree_util.register_pytree_node_class
class Reduced(Mapping[str, Array]):
    """Names to scalars, held in one vector.

    A step that returns 64 arrays pays for each of them, and so does whoever copies them. As a
    pytree this is one leaf, of shape `(n,)`: `Logger.log` takes it as it is.

    Attributes:
        names: names, in order.
        vector: a value for each name along its last axis.
    """

    def __init__(self, names: tuple[str, ...], vector: Float[Array, "... n"]) -> None:
        self.names = names
        self.vector = vector
        self._each: dict[str, Array] | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, Array]) -> Self:
        """Scalars of one float type, put into a vector."""
        empty = jnp.zeros((0,), float)
        return cls(tuple(metrics), stack([*metrics.values()]) if metrics else empty)

    def __getitem__(self, name: str) -> Array:
        if self._each is None:
            self._each = dict(zip(self.names, _unstack(self.vector), strict=True))
        return self._each[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)})"

    def tree_flatten(self) -> tuple[tuple[Array], tuple[str, ...]]:
        return (self.vector,), self.names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: Any) -> Self:
        return cls(names, *leaves)


@jax.jit
def _unstack(vector: Array) -> list[Array]:
    """All values at once: slices of an array outside of compiled code are a dispatch each."""
    return [vector[..., place] for place in range(vector.shape[-1])]
