import equinox as eqx
import jax.numpy as jnp

from lerax_dist._hparams import extract


class Inner(eqx.Module):
    width: int
    weight: object


class Outer(eqx.Module):
    rate: float
    kind: str
    flag: bool
    sizes: tuple
    inner: Inner
    array: object
    _private: int = 3


def test_fields_become_dotted_names_and_arrays_are_left_out():
    module = Outer(0.5, "relu", True, (64, 32), Inner(8, jnp.ones(3)), jnp.float32(2.0))
    assert extract(module, "policy") == {
        "policy.rate": 0.5,
        "policy.kind": "relu",
        "policy.flag": True,
        "policy.sizes": "(64, 32)",
        "policy.inner.width": 8,
    }


def test_what_has_no_fields_gives_nothing():
    assert extract(None, "policy") == {}
    assert extract(3, "policy") == {}
    assert extract(Outer, "policy") == {}
