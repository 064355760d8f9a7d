"""Exact sums of step counters over any number of environments and devices.

float32 counts to 2**24 only, and int32 to 2.1e9. So a counter travels as limbs of 8 bits: each
device sends values below 256, their sum over up to 2**15 devices is exact in float32, also as the
mean that `lax.pmean` makes of it, and the host joins them again (`join_limbs` in `_schema`).
"""

from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from lerax_dist._schema import LIMB_BITS, LIMBS

_MASK = (1 << LIMB_BITS) - 1


def split_steps(step: Int[Array, "..."]) -> Float[Array, " limb"]:
    """The sum of step counters as limbs, lowest first.

    Args:
        step: counters of up to 2**24 environments.

    Returns:
        Limbs, each a whole number below 256; together exact below 2**56.
    """
    wide = step.dtype.itemsize > 4
    counts = step.astype(jnp.uint64 if wide else jnp.uint32)
    digits = LIMBS if wide else 4
    shifts = jnp.arange(digits, dtype=counts.dtype) * LIMB_BITS
    # Shapes of one length, here and elsewhere: users may have JAX refuse rank promotion.
    shifts = shifts.reshape(*[1] * counts.ndim, digits)
    parts = ((counts[..., None] >> shifts) & _MASK).astype(jnp.uint32)
    # dtype: under x64 a sum of uint32 would be uint64, which needs no limbs but two layouts.
    totals = jnp.sum(parts, axis=tuple(range(counts.ndim)), dtype=jnp.uint32)
    limbs = []
    carry = jnp.zeros((), jnp.uint32)
    for i in range(LIMBS):
        value = carry + (totals[i] if i < digits else jnp.zeros((), jnp.uint32))
        limbs.append(value & jnp.uint32(_MASK))
        carry = value >> jnp.uint32(LIMB_BITS)
    return jnp.stack(limbs).astype(jnp.float32)
