"""Partials of any split of the data, merged on the host in any order, against NumPy on the whole.

A pure test of what the package keeps to itself; over real devices see `test_reduced.py`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist import Last, LoggingCallbackStepState, Max, Mean, Min, Sum
from lerax_dist._schema import Schema, Totals, join_limbs
from lerax_dist.device._axes import find_axes
from lerax_dist.device._pack import pack

# How many values a part may hold; one shape, so that it compiles once.
SIZE = 5
# Whole numbers, whose sums and squares are exact in float32.
_VALUES = st.integers(-1000, 1000).map(float)
_PARTS = st.lists(
    st.lists(st.tuples(_VALUES, st.booleans()), min_size=SIZE, max_size=SIZE),
    min_size=1,
    max_size=7,
)


# What the vectors mean, of the first part and of the others.
_schemas: dict[bool, Schema] = {}


@functools.partial(jax.jit, static_argnums=(2,))
def packed(values: Any, mask: Any, first: bool) -> Any:
    """The vector of one part; what it means is kept beside."""
    hidden = jnp.where(mask, values, jnp.nan)
    lengths = jnp.where(mask, 2.0, 0.0)
    zeros = jnp.zeros(SIZE)
    metrics = {
        "mean": Mean.of(hidden, where=mask),
        "sum": Sum(jnp.where(mask, values, 0.0).sum()),
        "max": Max(values.max()),
        "min": Min(values.min()),
        "last": Last(values[0]),
    }
    states = LoggingCallbackStepState(
        mask.astype(jnp.int32), zeros, zeros.astype(jnp.int32), mask, hidden, lengths
    )
    schema, vector = pack(metrics, find_axes(None), step_state=states, is_first=first)
    _schemas[first] = schema
    return vector


def totals(part: list[tuple[float, bool]], first: bool) -> Totals:
    values, mask = (np.array(column) for column in zip(*part, strict=True))
    vector = np.asarray(packed(values.astype(np.float32), mask, first), np.float64)
    plain, sums, limbs, maxima = _schemas[first].split(vector)
    return Totals(1, plain, sums, maxima, int(join_limbs(limbs)))


@given(_PARTS, st.randoms(use_true_random=False))
def test_merged_partials_of_any_split_are_those_of_the_whole(parts, random):
    first = totals(parts[0], True)
    others = [totals(part, False) for part in parts[1:]]
    random.shuffle(others)
    schema = _schemas[True]
    merged = [schema.merge([first, *others])]
    if len(others) > 1:
        # And as a mean of means would not be: some merged before the others.
        cut = random.randrange(1, len(others) + 1)
        merged.append(schema.merge([schema.merge([first, *others[:cut]]), *others[cut:]]))
    values, mask = (np.array(column) for column in zip(*sum(parts, []), strict=True))
    ended = values[mask]
    for one in merged:
        batch = schema.finish([one])
        found = dict(zip(batch.names, batch.values[0].tolist(), strict=True))
        absent = dict(zip(batch.names, batch.absent[0].tolist(), strict=True))
        assert batch.steps == [mask.sum()]
        assert (found["max"], found["min"]) == (values.max(), values.min())
        assert (found["sum"], found["last"]) == (ended.sum(), parts[0][0][0])
        assert found["episode/count"] == mask.sum()
        assert absent["mean"] == absent["episode/return"] == (not mask.any())
        if mask.any():
            assert found["mean"] == ended.mean()
            assert (found["episode/return_min"], found["episode/return_max"]) == (
                ended.min(),
                ended.max(),
            )
            np.testing.assert_allclose(found["episode/return"], ended.mean(), atol=1e-3)
            np.testing.assert_allclose(found["episode/return_std"], ended.std(), atol=1e-2)
            assert found["episode/length"] == 2.0
