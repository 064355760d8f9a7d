"""Packs a pytree of arrays of any type into one vector of int32, and unpacks it. Pure."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Int


class Layout(NamedTuple):
    """How to read a packed pytree. It holds no arrays, so it may outlive the trace.

    Attributes:
        tree: structure of the pytree.
        leaves: dtype and shape of each leaf; those of its data for a random key.
    """

    tree: Any
    leaves: tuple[tuple[np.dtype, tuple[int, ...]], ...]

    @property
    def words(self) -> int:
        """Number of int32 words of the packed pytree."""
        return sum(_words(dtype, shape) for dtype, shape in self.leaves)


def _words(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) * dtype.itemsize // 4)


def _as_data(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def layout_of(tree: Any) -> Layout:
    """The layout of a pytree of arrays or tracers."""
    leaves, structure = jax.tree.flatten(tree)
    data = [jax.eval_shape(_as_data, leaf) for leaf in leaves]
    return Layout(structure, tuple((np.dtype(leaf.dtype), leaf.shape) for leaf in data))


def pack(tree: Any) -> Int[Array, " word"]:
    """The bits of all leaves (one or more), each starting at a new word.

    Raises:
        TypeError: if a leaf has a type that cannot be cast to integers bitwise (complex numbers).
    """
    return jnp.concatenate([_bits(_as_data(leaf)) for leaf in jax.tree.leaves(tree)])


def _bits(leaf: Array) -> Int[Array, " word"]:
    flat = leaf.reshape(-1)
    if flat.dtype == jnp.bool_:
        flat = flat.astype(jnp.uint8)
    per_word = 4 // flat.dtype.itemsize
    if per_word > 1:
        flat = jnp.pad(flat, (0, -flat.size % per_word)).reshape(-1, per_word)
    return lax.bitcast_convert_type(flat, jnp.int32).reshape(-1)


def unpack(words: np.ndarray, layout: Layout) -> Any:
    """The pytree that `pack` made these words of, with NumPy arrays as leaves."""
    leaves, start = [], 0
    for dtype, shape in layout.leaves:
        end = start + _words(dtype, shape)
        data = words[start:end].tobytes()[: math.prod(shape) * dtype.itemsize]
        leaves.append(np.frombuffer(data, dtype).reshape(shape))
        start = end
    return jax.tree.unflatten(layout.tree, leaves)
