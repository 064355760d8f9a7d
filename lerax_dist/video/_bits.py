"""A pytree of arrays of any type as one vector of int32, and back. Pure."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Int


class Layout(NamedTuple):
    """What the bits of a packed pytree mean. It holds no array and outlives the trace.

    Attributes:
        tree: structure of the pytree.
        leaves: type and shape of each leaf; a random key is its data.
    """

    tree: Any
    leaves: tuple[tuple[np.dtype, tuple[int, ...]], ...]

    @property
    def words(self) -> int:
        """How many int32 the packed pytree has."""
        return sum(_words(dtype, shape) for dtype, shape in self.leaves)


def _words(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) * dtype.itemsize // 4)


def _plain(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def layout_of(tree: Any) -> Layout:
    """The layout of a pytree of arrays or tracers."""
    leaves, structure = jax.tree.flatten(tree)
    plain = [jax.eval_shape(_plain, leaf) for leaf in leaves]
    return Layout(structure, tuple((np.dtype(leaf.dtype), leaf.shape) for leaf in plain))


def pack(tree: Any) -> Int[Array, " word"]:
    """The bits of all leaves, one after the other, each from a new word on.

    Args:
        tree: pytree of arrays, at least one.

    Raises:
        TypeError: a leaf is of a type without bits of its own (complex numbers).
    """
    return jnp.concatenate([_bits(_plain(leaf)) for leaf in jax.tree.leaves(tree)])


def _bits(leaf: Array) -> Int[Array, " word"]:
    flat = leaf.reshape(-1)
    if flat.dtype == jnp.bool_:
        flat = flat.astype(jnp.uint8)
    in_word = 4 // flat.dtype.itemsize
    if in_word > 1:
        flat = jnp.pad(flat, (0, -flat.size % in_word)).reshape(-1, in_word)
    return lax.bitcast_convert_type(flat, jnp.int32).reshape(-1)


def unpack(words: np.ndarray, layout: Layout) -> Any:
    """The pytree with NumPy arrays as leaves.

    Args:
        words: int32 vector, as packed.
        layout: its layout.
    """
    leaves, at = [], 0
    for dtype, shape in layout.leaves:
        end = at + _words(dtype, shape)
        data = words[at:end].tobytes()[: math.prod(shape) * dtype.itemsize]
        leaves.append(np.frombuffer(data, dtype).reshape(shape))
        at = end
    return jax.tree.unflatten(layout.tree, leaves)
