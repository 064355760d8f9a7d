"""Names of metrics: joined with a slash, and each once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lerax_dist as ld
from tests.loop import iteration, step_states
from tests.memory import Memory


@pytest.fixture(params=["reduce", "Logger", "LoggingCallback"])
def names_of(request, tmp_path):
    """Gives the names under which nested metrics are logged, by each of the ways to log them."""
    return way(request.param, tmp_path)


@pytest.fixture(params=["reduce", "LoggingCallback"])
def traced_names_of(request, tmp_path):
    """The same, where a step is traced. `Logger` takes other names: see `test_logger.py`."""
    return way(request.param, tmp_path)


def way(kind: str, tmp_path: Path) -> Callable[[Any], list[str]]:

    def names(metrics: Any) -> list[str]:
        if kind == "reduce":
            return list(ld.reduce(metrics))
        memory = Memory()
        if kind == "Logger":
            with ld.Logger(memory, log_dir=tmp_path, strict=True) as logger:
                logger.log(metrics, 0)
        else:
            with ld.LoggingCallback(memory, log_dir=tmp_path) as logger:
                iteration(logger, step_states([1]), metrics)
        ((_, row),) = memory.rows
        return [
            name.removeprefix("train/")
            for name in row
            if not name.startswith(("episode/", "time/"))
        ]

    return names


def test_nested_names_are_joined_with_a_slash_in_order(names_of):
    assert names_of({"b": {"y": 1, "x": {"z": 2}}, "a": 3}) == ["b/y", "b/x/z", "a"]


def test_a_prefix_stands_before_every_name_of_a_training_log(tmp_path):
    memory = Memory()
    with ld.LoggingCallback(memory, log_dir=tmp_path) as logger:
        iteration(logger, step_states([1]), {"loss": 1, "a": {"b": 2}})
    assert {"train/loss", "train/a/b"} <= set(memory.rows[0][1])


def test_two_names_that_collide_after_joining_are_refused(names_of):
    with pytest.raises(ValueError, match="a/b' twice.*Rename"):
        names_of({"a/b": 1, "a": {"b": 2}})


@pytest.mark.parametrize("name", [3, None, ("a",), b"a"])
def test_a_name_that_is_no_string_is_refused_with_its_value(traced_names_of, name):
    with pytest.raises(TypeError, match="names are strings"):
        traced_names_of({"a": {name: 1}})


def test_an_empty_name_is_refused(names_of):
    with pytest.raises(ValueError, match="empty name"):
        names_of({"a": {"": 1}})


def test_metrics_that_are_no_mapping_are_refused(names_of):
    with pytest.raises((TypeError, ValueError), match="`metrics` must .*got 3.*Name the value"):
        names_of(3)
