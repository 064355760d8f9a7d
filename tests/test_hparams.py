"""Hyperparameters that the logger finds in the fields of a policy and an algorithm."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import pytest

import lerax_dist as ld
from tests.loop import KEY, training
from tests.memory import Memory


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


def found(tmp_path, policy: Any, **options):
    """What a backend is given at the start of a training with this policy."""
    memory = Memory()
    with ld.LoggingCallback(memory, "r", log_dir=tmp_path, **options) as logger:
        logger.on_training_start(training(ld.EmptyCallbackState(), 10, policy=policy), key=KEY)
    return [call[1] for call in memory.calls if call[0] == "hparams"]


def test_fields_become_dotted_names_and_arrays_are_left_out(tmp_path):
    module = Outer(0.5, "relu", True, (64, 32), Inner(8, jnp.ones(3)), jnp.float32(2.0))
    assert found(tmp_path, module) == [
        {
            "policy.rate": 0.5,
            "policy.kind": "relu",
            "policy.flag": True,
            "policy.sizes": "(64, 32)",
            "policy.inner.width": 8,
        }
    ]


@pytest.mark.parametrize("policy", [None, 3, Outer])
def test_what_has_no_fields_gives_nothing(tmp_path, policy):
    assert found(tmp_path, policy) == []


def test_nested_hyperparameters_get_dotted_names(tmp_path):
    given = {"a": {"b": 1}, "c": "x"}
    assert found(tmp_path, None, hparams=given)[0] == {"a.b": 1, "c": "x"}


def test_hyperparameters_that_are_no_mapping_are_refused(tmp_path):
    with pytest.raises(TypeError, match="`hparams` must be a mapping"):
        found(tmp_path, None, hparams=[1])
    with pytest.raises(TypeError, match="object with fields"):
        found(tmp_path, None, hparams=Outer)
    assert list(tmp_path.iterdir()) == []
