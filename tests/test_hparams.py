"""Hyperparameters that the logger finds in the fields of a policy and an algorithm."""

import argparse
import dataclasses
import enum
import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pydantic
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


@dataclasses.dataclass
class Optimizer:
    rate: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.99)


@dataclasses.dataclass
class Config:
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    width: int = 64
    _private: int = 1
    hidden: int = dataclasses.field(default=2, repr=False)


class Kind(enum.Enum):
    RELU = "relu"


class Text(enum.StrEnum):
    TANH = "tanh"


class Pair(NamedTuple):
    first: int = 1
    second: Optimizer = Optimizer()


class Validated(pydantic.BaseModel):
    rate: float = 0.5
    key: pydantic.SecretStr = pydantic.SecretStr("s3cr3t")


class Linen(nn.Module):
    width: int = 3
    activation: Any = nn.relu


class Bare:
    def __init__(self):
        self.rate, self._private, self.myself = 1, 2, self


class Unreadable(dict):
    def __getitem__(self, key):
        raise LookupError("no such interpolation")


def schedule(rate, b1=0.0):
    return lambda step: rate * step


OPTIMIZER = {"rate": 0.1, "betas": [0.9, 0.99]}
DEEP: dict[str, Any] = {}
DEEP["self"] = DEEP
MODULE = __name__
CONFIGS = {
    "dataclass": (Config(), {"optimizer.rate": 0.1, "optimizer.betas": [0.9, 0.99], "width": 64}),
    "namespace": (argparse.Namespace(lr=1, path=Path("a/b")), {"lr": 1, "path": "a/b"}),
    "bare object": (Bare(), {"rate": 1, "myself": f"<{MODULE}.Bare>"}),
    "pydantic": (Validated(), {"rate": 0.5, "key": "*" * 10}),
    "tuple": ({"p": Pair()}, {"p.first": 1, **{f"p.second.{k}": v for k, v in OPTIMIZER.items()}}),
    "flax": (
        Linen(),
        {"width": 3, "activation": f"{nn.relu.__module__}.relu", "name": None},
    ),
    "list of mappings": (
        {"layers": [{"n": 1}, {"n": 2}], "none": [], "flat": [[1, 2], [3]]},
        {"layers.0.n": 1, "layers.1.n": 2, "none": [], "flat": [[1, 2], [3]]},
    ),
    "enums": (
        {"a": Kind.RELU, "b": Text.TANH, Kind.RELU: 1},
        {"a": "Kind.RELU", "b": "tanh", "Kind.RELU": 1},
    ),
    "sets": ({"a": {3, 1, 2}, "b": frozenset("cab")}, {"a": [1, 2, 3], "b": ["a", "b", "c"]}),
    "dtypes": (
        {"a": np.float32, "b": jnp.float32, "c": np.dtype("float32"), "d": jnp.bfloat16},
        {"a": "float32", "b": "float32", "c": "float32", "d": "bfloat16"},
    ),
    "functions": (
        {"f": schedule, "g": schedule(1), "c": Config, "m": "a".upper, "j": jax.jit(schedule)},
        {
            "f": f"{MODULE}.schedule",
            "g": f"{MODULE}.schedule.<locals>.<lambda>",
            "c": f"{MODULE}.Config",
            "m": "str.upper",
            "j": f"{MODULE}.schedule",
        },
    ),
    "partials": (
        {"opt": functools.partial(schedule, 0.5, b1=0.9)},
        {"opt": f"{MODULE}.schedule", "opt.0": 0.5, "opt.b1": 0.9},
    ),
    "arrays": (
        {"short": np.arange(3), "long": np.zeros((3, 1000)), "jax": jnp.ones(2), "one": np.int8(3)},
        {"short": [0, 1, 2], "long": "float64[3,1000]", "jax": [1.0, 1.0], "one": 3},
    ),
    "shapes": (
        {"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.random.key(0)},
        {"a": "float32[2,3]", "b": "key<fry>[]"},
    ),
    "names": (
        {1: 2, (1, 2): 3, "a": {"b": 1}, "a.b": 2},
        {"1": 2, "(1, 2)": 3, "a.b": 1, "a.b_": 2},
    ),
    "integers": ({"seed": 2**65, "many": 10**5000}, {"seed": 2**65, "many": hex(10**5000)}),
    "cycle": ({"deep": DEEP, "x": 1}, {"deep.self": "<dict>", "x": 1}),
    "unreadable": (
        {"bad": Unreadable(a=1), "x": 1},
        {"bad.a": "<not readable: LookupError>", "x": 1},
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_becomes_dotted_names_and_plain_values(tmp_path, kind):
    given, expected = CONFIGS[kind]
    memory = Memory()
    with ld.Logger(memory, "r", log_dir=tmp_path, hparams=given) as logger:
        pass
    assert [call[1] for call in memory.calls if call[0] == "hparams"] == [expected]
    assert dict(ld.read_run(logger.run_dir).hparams) == expected


@pytest.mark.parametrize("module", [
    eqx.nn.MLP(2, 2, 64, 1, key=jax.random.key(0)),
    nnx.Linear(2, 64, rngs=nnx.Rngs(0)),
    {"opt": optax.adam(optax.cosine_decay_schedule(1e-3, 9)), "init": nn.initializers.orthogonal()},
], ids=["equinox", "nnx", "optax"])  # fmt: skip
def test_nothing_of_a_module_differs_in_each_launch_or_is_long(tmp_path, module):
    memory = Memory()
    with ld.Logger(memory, "r", log_dir=tmp_path, hparams=module):
        pass
    (hparams,) = [call[1] for call in memory.calls if call[0] == "hparams"]
    assert len(hparams) >= 3
    text = json.dumps(hparams)
    assert re.search(r"0x[0-9a-f]{6}", text) is None and len(text) < 6000


def test_the_configurations_of_libraries(tmp_path):
    attrs = pytest.importorskip("attrs")
    collections = pytest.importorskip("ml_collections")
    omegaconf = pytest.importorskip("omegaconf")

    @attrs.define
    class Attrs:
        width: int = 1
        optimizer: Optimizer = attrs.field(factory=Optimizer)
        hidden: int = attrs.field(default=3, repr=False)

    nested = {"a": {"b": 1, "t": (1, 2)}, "c": "x"}
    tree = {"a": {"b": [1, {"c": 2}], "d": "${x}"}, "x": 5, "bad": "${nowhere}", "missing": "???"}
    for number, (given, expected) in enumerate([
        (Attrs(), {"width": 1, "optimizer.rate": 0.1, "optimizer.betas": [0.9, 0.99]}),
        (collections.ConfigDict(nested), {"a.b": 1, "a.t": [1, 2], "c": "x"}),
        ({"config": collections.FrozenConfigDict(nested)},
         {"config.a.b": 1, "config.a.t": [1, 2], "config.c": "x"}),
        (omegaconf.OmegaConf.create(tree),
         {"a.b.0": 1, "a.b.1.c": 2, "a.d": 5, "x": 5,
          "bad": "<not readable: InterpolationKeyError>",
          "missing": "<not readable: MissingMandatoryValue>"}),
    ]):  # fmt: skip
        memory = Memory()
        with ld.Logger(memory, f"r{number}", log_dir=tmp_path, hparams=given):
            pass
        assert [call[1] for call in memory.calls if call[0] == "hparams"] == [expected]


def test_after_an_attempt_that_failed_the_files_show_the_configuration_that_runs(tmp_path):
    def attempt(**hparams):
        backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path)]
        return ld.Logger(backends, "r", hparams=hparams)

    with pytest.raises(KeyError), attempt(lr=1.0, old=1):
        raise KeyError
    with attempt(lr=2.0) as logger:
        logger.log({"x": 1.0}, 0)
        logger.log_hparams({"found": 3})
    running = {"lr": 2.0, "found": 3}
    assert dict(ld.read_run(logger.run_dir).hparams) == running
    assert json.loads((logger.run_dir / "hparams.json").read_text()) == running
    (session,) = logger.run_dir.glob("*hparams")
    assert b"found" in session.read_bytes() and b"old" not in session.read_bytes()
