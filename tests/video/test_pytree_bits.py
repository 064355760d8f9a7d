"""A pytree packed into int32 and unpacked again is equal bit for bit, whatever its types."""

import jax
import ml_dtypes
import numpy as np
import pytest
from jax import numpy as jnp

from lerax_dist.video._pytree_bits import layout_of, pack, unpack

VALUES = {
    "float32": np.array([[0.1, -0.0, np.inf], [np.nan, 1e-40, 3.0]], np.float32),
    "float16": np.array([0.1, -2.0, 65504.0], np.float16),
    "bfloat16": np.array([0.1, -2.0, 3e38], ml_dtypes.bfloat16),
    "int32": np.array([-1, 2**31 - 1, -(2**31)], np.int32),
    "uint32": np.array([0, 2**32 - 1], np.uint32),
    "int16": np.array([-1, 5, -32768], np.int16),
    "int8": np.array([-1, 5, -128, 127, 3], np.int8),
    "uint8": np.arange(30, dtype=np.uint8).reshape(2, 3, 5),
    "bool": np.array([True, False, True]),
    "scalar": np.array(7, np.int8),
    "empty": np.zeros((3, 0), np.float32),
}


def round_trip(tree):
    packed = jax.jit(pack)(tree)
    layout = layout_of(tree)
    assert packed.dtype == jnp.int32
    assert packed.shape == (layout.words,)
    return unpack(np.asarray(packed), layout)


@pytest.mark.parametrize("name", VALUES)
def test_every_type_is_restored_bit_for_bit(name):
    value = VALUES[name]
    back = round_trip({"before": jnp.int8(3), "x": jnp.asarray(value), "z": jnp.float32(0.5)})
    assert back["x"].dtype == value.dtype
    assert back["x"].shape == value.shape
    assert back["x"].tobytes() == value.tobytes()
    assert (back["before"], back["z"]) == (3, 0.5)


def test_64_bit_types_are_restored_bit_for_bit():
    with jax.enable_x64(True):
        values = {"f": np.array([0.1, -1e300]), "i": np.array([-(2**63), 2**53 + 1])}
        back = round_trip(jax.tree.map(jnp.asarray, values))
    for name, value in values.items():
        assert back[name].dtype == value.dtype
        assert back[name].tobytes() == value.tobytes()


def test_a_random_key_is_restored_as_its_data():
    keys = jax.random.split(jax.random.key(3), 4)
    np.testing.assert_array_equal(round_trip({"k": keys})["k"], jax.random.key_data(keys))


def test_complex_numbers_raise():
    with pytest.raises(TypeError):
        pack({"x": jnp.ones(2, jnp.complex64)})
