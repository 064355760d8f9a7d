"""The parts of all devices become a row: one `lax.pmean` over the devices of all hosts.

Means and sums go through it as they are. Maxima, and sums that are taken around a point which
maxima give, cannot be added up. Where the devices are few each has a slot of its own for them,
which is zero on all others: then the same mean brings every slot to every device. Where they are
many the slots would be more than the metrics, and a `lax.pmax` precedes the mean.
"""

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist._schema import Schema
from lerax_dist.device._axes import Axes

# How many numbers of a row the slots of all devices may take: 512 bytes.
_MAX_IN_SLOTS = 128


def merge(schema: Schema, vector: Float[Array, "*rows n"], axes: Axes) -> Float[Array, "*rows n"]:
    """Merge the parts of all devices.

    Args:
        schema: what the vector means.
        vector: this device's part of a row, or of several.
        axes: axes to merge over.

    Returns:
        The vector, the same on every device.
    """
    if not axes.reduced or not vector.size:
        return vector
    vector = axes.vary(vector)
    plain, sums, limbs, maxima = schema.split(vector)
    devices = axes.size(axes.reduced)
    if not maxima.shape[-1] or devices == 1:
        return lax.pmean(vector, axes.reduced)
    slot = len(schema.shifting) + maxima.shape[-1]
    # Divided by a power of two, and multiplied by it, a number stays the same to the last bit.
    if devices & (devices - 1) == 0 and devices * slot <= _MAX_IN_SLOTS:
        return _in_slots(schema, vector, axes, devices)
    merged = _highest(maxima, axes)
    sums = schema.shifted(sums, maxima, merged, jnp)
    means = lax.pmean(jnp.concatenate([plain, sums, limbs], axis=-1), axes.reduced)
    return jnp.concatenate([means, merged], axis=-1)


def _highest(maxima: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    """The maxima of all devices, NaN where one device has NaN: some collectives drop it."""
    # As integers of the same order, where NaN comes after infinity. The map is its own inverse.
    integer = jnp.int64 if maxima.dtype.itemsize > 4 else jnp.int32

    def swap(bits: Array) -> Array:
        return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)

    # Canonical NaN: one with the sign bit set would sort below -inf.
    bits = lax.bitcast_convert_type(jnp.where(jnp.isnan(maxima), jnp.nan, maxima), integer)
    merged = lax.pmax(swap(bits), axes.reduced)
    return lax.bitcast_convert_type(swap(merged), maxima.dtype)


def _in_slots(
    schema: Schema, vector: Float[Array, "*rows n"], axes: Axes, devices: int
) -> Float[Array, "*rows n"]:
    """One mean for all: each device has a slot, zero on the others, for what cannot be added.

    A slot holds the device's shifting sums and its maxima, `s` numbers. The mean of slot `i` over
    `devices` devices is its content / devices. Shapes: own `(*rows, 1, s)`, slots
    `(*rows, devices, s)`.
    """
    shifting = schema.shifting
    plain, sums, limbs, maxima = schema.split(vector)
    own = jnp.concatenate([sums[..., shifting], maxima], axis=-1)[..., None, :]
    is_mine = jnp.arange(devices)[:, None] == lax.axis_index(axes.reduced)
    slots = jnp.where(is_mine.reshape(*[1] * (own.ndim - 2), devices, 1), own, 0)
    flat = slots.reshape(*own.shape[:-2], -1)
    means = lax.pmean(jnp.concatenate([plain, sums, limbs, flat], axis=-1), axes.reduced)
    first = vector.shape[-1] - maxima.shape[-1]
    plain, sums, limbs, _ = schema.split(means)
    slots = means[..., first:].reshape(slots.shape) * devices
    maxima = slots[..., len(shifting) :]
    merged = maxima.max(-2)
    # Every device's sums, `(*rows, devices, sums)`: only the shifting ones differ and count.
    each = jnp.broadcast_to(sums[..., None, :], (*slots.shape[:-1], sums.shape[-1]))
    each = each.at[..., shifting].set(slots[..., : len(shifting)])
    around = jnp.broadcast_to(merged[..., None, :], maxima.shape)
    moved = schema.shifted(each, maxima, around, jnp)[..., shifting]
    sums = sums.at[..., shifting].set(moved.mean(-2))
    return jnp.concatenate([plain, sums, limbs, merged], axis=-1)
