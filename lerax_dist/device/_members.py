"""What `vmap` makes of the rows of a training: one row of all its members.

A transfer of rows has a batching rule. Where `vmap` maps it over an axis that holds no data (see
`Axes`), the rule brings all members together: their metrics are finished on the devices, and become
rows of another schema, which leave in one message as the rows of one training do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from lerax_dist._schema import Finished, PartialSpec, Schema
from lerax_dist.device._axes import Axes
from lerax_dist.device._pack import merge
from lerax_dist.device._partials import Mean
from lerax_dist.device._spread import spread_maxima, spread_of, spread_shift, spread_terms
from lerax_dist.device._step_state import largest_steps

# Sends rows of a schema that are merged: whether (`None` for yes), iterations `(k,)`, how many rows
# there are, vectors `(k, n)`.
SendRows = Callable[[Schema, Array | None, Array, Array, Array], None]


class Rows(NamedTuple):
    """Rows on their way, each array with a leading axis of members in a rule.

    Attributes:
        when: whether they are due.
        used: how many there are.
        iterations: number of the iteration of each; those of earlier rows may follow.
        vectors: their vectors.
    """

    when: Bool[Array, "*members"]
    used: Int[Array, "*members"]
    iterations: Int[Array, "*members k"]
    vectors: Float[Array, "*members k n"]


def transfer(send_rows: SendRows, schema: Schema, rows: Rows, axes: Axes, members: str) -> None:
    """Merge rows over the axes that hold data, and send one row for all members of the others.

    Under a `vmap` that maps it, a condition around this call is none any more: `rows.when` says it.

    Args:
        send_rows: sends them.
        schema: what the vectors mean.
        rows: of this device.
        axes: axes in scope; if it reduces over none, the rows are merged already.
        members: `"band"` or `"each"`, see `LoggingCallback`.
    """
    # A rule does not know the names of mapped axes. So those that hold data come first: what is the
    # same along them all is not mapped, and no rule is called for them.
    vmapped, data = axes.split()
    vectors = lax.stop_gradient(rows.vectors)
    schema, vectors = merge(schema, vectors, axes._replace(reduced=vmapped))
    axes = axes._replace(reduced=data)

    def send_one(*rows: Array) -> tuple[()]:
        one = Rows(*rows)
        if axes.members:
            send_all(*(array[None] for array in one))
        else:
            merged, vectors = merge(schema, one.vectors, axes)
            send_rows(merged, one.when, one.iterations, one.used, vectors)
        return ()

    def send_members(*rows: Array) -> tuple[()]:
        _send_members(send_rows, schema, Rows(*rows), axes, _STYLES[members])
        return ()

    batched = custom_vmap(send_one)
    send_all = custom_vmap(send_members)

    @batched.def_vmap
    def _(size: int, is_mapped: list[bool], *rows: Array) -> tuple[tuple[()], tuple[()]]:
        send_all(*_along_all(size, is_mapped, rows))
        return (), ()

    @send_all.def_vmap
    def _(size: int, is_mapped: list[bool], *rows: Array) -> tuple[tuple[()], tuple[()]]:
        both = _along_all(size, is_mapped, rows)
        send_all(*(array.reshape(-1, *array.shape[2:]) for array in both))
        return (), ()

    merged = rows._replace(vectors=vectors)
    # Outside of compiled code there is nothing to batch, and `send` needs no callback.
    is_traced = any(isinstance(each, Tracer) for each in merged)
    (batched if is_traced else send_one)(*merged)


def _along_all(size: int, is_mapped: list[bool], arrays: tuple[Array, ...]) -> list[Array]:
    """Arrays with a leading axis that they do not all have yet."""
    # In a scan JAX hands a constant scalar as one of Python or NumPy.
    return [
        array if mapped else jnp.broadcast_to(jnp.asarray(array)[None], (size, *jnp.shape(array)))
        for array, mapped in zip(arrays, is_mapped, strict=True)
    ]


def _send_members(
    send_rows: SendRows, schema: Schema, rows: Rows, axes: Axes, style: "_Style"
) -> None:
    """Send the rows of the member that is ahead, with those of the others on the same iterations.

    A batched `while_loop` calls members that have finished again and again, with rows that they
    have sent before: these are behind.
    """
    room = rows.iterations.shape[1]
    when = rows.when.astype(jnp.int32)
    head = axes.gather(jnp.column_stack([when, rows.used, rows.iterations]))
    iterations = head[:, 2:]
    # Not by an index, for which members that are spread over devices would have to be collected.
    is_ahead = jnp.arange(len(head)) == jnp.argmax(jnp.max(iterations, axis=1))
    ahead = jnp.sum(jnp.where(is_ahead[:, None], head, 0), axis=0, dtype=head.dtype)
    due, count = ahead[0], ahead[1]
    there = jnp.arange(room, dtype=jnp.int32)[None] < head[:, 1:2]
    there &= iterations == ahead[None, 2:]

    def go(vectors: Array) -> None:
        merged, vectors = merge(schema, vectors, axes)
        over, vectors = style(merged, axes.gather(vectors), there)
        send_rows(over, None, ahead[2:], count, vectors)

    # An absent value is a NaN on the way, on purpose.
    with jax.debug_nans(False):
        lax.cond(due > 0, go, lambda _: None, rows.vectors)


class _Metrics(NamedTuple):
    """The metrics of all members.

    Attributes:
        names: names of the scalars.
        values: `(members, k, names)`, 0 where there is none.
        there: the same shape: where a member has a value.
        vectors: for each vector metric its name, values `(members, k, length)` and where they are
            there `(members, k)`.
    """

    names: tuple[str, ...]
    values: Array
    there: Array
    vectors: list[tuple[str, Array, Array]]


_Style = Callable[[Schema, Array, Array], tuple[Schema, Array]]


def _finish(schema: Schema, rows: Float[Array, "members k n"], there: Array) -> _Metrics:
    plain, *_ = schema.split(rows)
    names, vectors = [*schema.plain], []
    # The plain scalars are one array already; each operand of a concatenation costs a kernel.
    values, present = [plain], [jnp.broadcast_to(there[..., None], plain.shape)]
    for name, value, is_absent in schema.finished(rows, jnp):
        value = value.astype(rows.dtype)
        if value.ndim > there.ndim:
            own = there if is_absent is None else there & ~jnp.all(is_absent, axis=0)
            vectors.append((name, jnp.where(own[..., None], jnp.moveaxis(value, 0, -1), 0.0), own))
            continue
        names.append(name)
        values.append(value[..., None])
        own = there if is_absent is None else there & ~is_absent
        present.append(own[..., None])
    own = jnp.concatenate(present, axis=-1)
    scalars = jnp.where(own, jnp.concatenate(values, axis=-1), 0.0)
    return _Metrics(tuple(names), scalars, own, vectors)


def _band(
    schema: Schema, rows: Float[Array, "members k n"], there: Bool[Array, "members k"]
) -> tuple[Schema, Float[Array, "k m"]]:
    """The mean over members, and lowest, highest and deviation beside it."""
    found = _finish(schema, rows, there)
    highest, lowest = spread_maxima(found.values, found.there, (0,))
    terms = spread_terms(found.values, found.there, (highest[None], lowest[None]))
    sums = [_interleaved(*jnp.sum(jnp.stack(terms), axis=1))]
    specs = [
        PartialSpec(name, _finish_band, spread_shift, (None,) * 3, (None,) * 2, 1)
        for name in found.names
    ]
    for name, values, own in found.vectors:
        weights = own.astype(values.dtype)
        sums += [jnp.sum(values, axis=0), jnp.sum(weights, axis=0)[..., None]]
        specs.append(_mean_spec(name, values))
    maxima = _interleaved(highest, lowest)
    return _rows_of(schema, specs, sums, rows, maxima, there)


def _each(
    schema: Schema, rows: Float[Array, "members k n"], there: Bool[Array, "members k"]
) -> tuple[Schema, Float[Array, "k m"]]:
    """The metrics of each member, under a name of its own."""
    found = _finish(schema, rows, there)
    pairs = _interleaved(found.values, found.there.astype(rows.dtype))
    members, room = there.shape
    sums = [jnp.moveaxis(pairs, 0, 1).reshape(room, -1)]
    specs = [
        PartialSpec(f"member_{i}/{name}", Mean.finish, None, (None, None), (), 1)
        for i in range(members)
        for name in found.names
    ]
    for name, values, own in found.vectors:
        for i in range(members):
            sums += [values[i], own[i].astype(values.dtype)[..., None]]
            specs.append(_mean_spec(f"member_{i}/{name}", values))
    return _rows_of(schema, specs, sums, rows, jnp.zeros((room, 0), rows.dtype), there)


_STYLES: dict[str, _Style] = {"band": _band, "each": _each}


def _finish_band(sums: Any, maxima: Any, numpy: Any) -> Finished:
    spread = spread_of(sums, maxima, numpy)
    values = {
        "": spread.mean,
        "/member_min": spread.lowest,
        "/member_max": spread.highest,
        "/member_std": spread.deviation,
    }
    return Finished(values, spread.count)


def _mean_spec(name: str, values: Array) -> PartialSpec:
    return PartialSpec(name, Mean.finish, None, (values.shape[-1], None), (), 1)


def _interleaved(*parts: Array) -> Array:
    """The first number of each, the second of each, and so on, along the last axis."""
    stacked = jnp.stack(parts, axis=-1)
    return stacked.reshape(*stacked.shape[:-2], -1)


def _rows_of(
    schema: Schema,
    specs: list[PartialSpec],
    sums: list[Array],
    rows: Float[Array, "members k n"],
    maxima: Float[Array, "k maxima"],
    there: Bool[Array, "members k"],
) -> tuple[Schema, Float[Array, "k m"]]:
    """Rows of all members and their schema; the step is that of a member."""
    _, _, limbs, _ = schema.split(rows)
    over = Schema(
        (),
        tuple(specs),
        None if schema.step_devices is None else 1,
        dtype=np.dtype(rows.dtype),
        sums_steps=False,
        unit=schema.unit,
        members=len(there),
    )
    parts = [*sums, maxima]
    if schema.step_devices is not None:
        parts.insert(-1, largest_steps(limbs * schema.step_devices, there))
    return over, jnp.concatenate(parts, axis=-1)
