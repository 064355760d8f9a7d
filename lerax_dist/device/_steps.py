"""Exact sums of step counters over any number of environments and devices.

float32 counts to 2**24 only, and int32 to 2.1e9. So a counter travels as limbs of 8 bits: each
device sends values below 256, their sum over up to 2**15 devices is exact in float32, also as the
mean that `lax.pmean` makes of it, and the host puts the integer together again.
"""

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, Float64, Int, Int64

LIMBS = 7
_BITS = 8
_MASK = (1 << _BITS) - 1
_PLACES = np.int64(1) << (_BITS * np.arange(LIMBS))


def split(step: Int[Array, "..."]) -> Float[Array, " limb"]:
    """The sum of step counters as limbs, lowest first.

    Args:
        step: counters of up to 2**24 environments.

    Returns:
        Limbs, each a whole number below 256; together exact below 2**56.
    """
    wide = step.dtype.itemsize > 4
    counts = step.astype(jnp.uint64 if wide else jnp.uint32)
    places = LIMBS if wide else 4
    shifts = jnp.arange(places, dtype=counts.dtype) * _BITS
    # Shapes of one length, here and elsewhere: users may have JAX refuse others.
    shifts = shifts.reshape(*[1] * counts.ndim, places)
    parts = ((counts[..., None] >> shifts) & _MASK).astype(jnp.uint32)
    # dtype: under x64 a sum of uint32 would be uint64, which needs no limbs but two layouts.
    totals = jnp.sum(parts, axis=tuple(range(counts.ndim)), dtype=jnp.uint32)
    limbs = []
    carry = jnp.zeros((), jnp.uint32)
    for place in range(LIMBS):
        value = carry + (totals[place] if place < places else jnp.zeros((), jnp.uint32))
        limbs.append(value & jnp.uint32(_MASK))
        carry = value >> jnp.uint32(_BITS)
    return jnp.stack(limbs).astype(jnp.float32)


def join(totals: Float64[np.ndarray, "*rows limb"]) -> Int64[np.ndarray, "*rows"]:
    """The integers whose limbs, summed over devices, are `totals` (up to rounding below 1/2)."""
    return np.rint(totals).astype(np.int64) @ _PLACES
