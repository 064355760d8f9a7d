"""Shares of a row become the row: one `lax.pmean` over the devices of all hosts. Pure.

Means and sums ride in it as they are. Maxima, and sums that are taken around a point which maxima
give, cannot be added up. Where the devices are few each has a slot of its own for them, which is
zero on all others: then the same mean brings every slot to every device. Where they are many the
slots would be more than the metrics, and a `lax.pmax` goes before the mean.
"""

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist.device._axes import Axes
from lerax_dist.device._schema import Schema

# How many numbers of a row the slots of all devices may take: 512 bytes.
_MOST_IN_SLOTS = 128


def merge(schema: Schema, vector: Float[Array, "*rows n"], axes: Axes) -> Float[Array, "*rows n"]:
    """Merge shares over the devices.

    Args:
        schema: what the vector means.
        vector: this device's share of a row, or of several.
        axes: axes to merge over.

    Returns:
        The vector, the same on every device.
    """
    if not axes.reduced or not vector.size:
        return vector
    vector = axes.vary(vector)
    maxima = vector[..., schema.first_maximum :]
    devices = axes.size(axes.reduced)
    if not maxima.shape[-1] or devices == 1:
        return lax.pmean(vector, axes.reduced)
    slot = len(schema.shifting) + maxima.shape[-1]
    # Divided by a power of two, and multiplied by it, a number stays the same to the last bit.
    if devices & (devices - 1) == 0 and devices * slot <= _MOST_IN_SLOTS:
        return _in_slots(schema, vector, axes, devices)
    merged = _highest(maxima, axes)
    plain, sums, limbs = _parts(schema, vector)
    sums = schema.shifted(sums, maxima, merged, jnp)
    means = lax.pmean(jnp.concatenate([plain, sums, limbs], axis=-1), axes.reduced)
    return jnp.concatenate([means, merged], axis=-1)


def _highest(maxima: Float[Array, "..."], axes: Axes) -> Float[Array, "..."]:
    """The maxima of all devices, NaN where one device has NaN: some collectives drop it."""
    # As integers of the same order, where NaN comes after infinity. The map is its own inverse.
    integer = jnp.int64 if maxima.dtype.itemsize > 4 else jnp.int32

    def swap(bits: Array) -> Array:
        return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)

    # One NaN for all: there are some below zero, too.
    bits = lax.bitcast_convert_type(jnp.where(jnp.isnan(maxima), jnp.nan, maxima), integer)
    merged = lax.pmax(swap(bits), axes.reduced)
    return lax.bitcast_convert_type(swap(merged), maxima.dtype)


def _in_slots(
    schema: Schema, vector: Float[Array, "*rows n"], axes: Axes, devices: int
) -> Float[Array, "*rows n"]:
    first, shifting = schema.first_maximum, schema.shifting
    own = jnp.concatenate(
        [vector[..., len(schema.plain) + shifting], vector[..., first:]], axis=-1
    )[..., None, :]
    mine = jnp.arange(devices)[:, None] == lax.axis_index(axes.reduced)
    slots = jnp.where(mine.reshape(*[1] * (own.ndim - 2), devices, 1), own, 0)
    ridden = jnp.concatenate([vector[..., :first], slots.reshape(*own.shape[:-2], -1)], axis=-1)
    means = lax.pmean(ridden, axes.reduced)
    plain, sums, limbs = _parts(schema, means)
    slots = means[..., first:].reshape(slots.shape) * devices
    maxima = slots[..., len(shifting) :]
    merged = maxima.max(-2)
    each = jnp.broadcast_to(sums[..., None, :], (*slots.shape[:-1], sums.shape[-1]))
    each = each.at[..., shifting].set(slots[..., : len(shifting)])
    around = jnp.broadcast_to(merged[..., None, :], maxima.shape)
    moved = schema.shifted(each, maxima, around, jnp)[..., shifting]
    sums = sums.at[..., shifting].set(moved.mean(-2))
    return jnp.concatenate([plain, sums, limbs, merged], axis=-1)


def _parts(schema: Schema, vector: Array) -> tuple[Array, Array, Array]:
    plain, end = len(schema.plain), schema.first_limb
    return vector[..., :plain], vector[..., plain:end], vector[..., end : schema.first_maximum]
