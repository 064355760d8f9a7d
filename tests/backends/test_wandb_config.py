import numpy as np
import pytest

from lerax_dist.backends._wandb_config import merged, nested, summary_of, with_step


def test_dotted_names_are_nested():
    assert nested({"policy.net.width": 64, "policy.depth": 2, "lr": 0.1}) == {
        "policy": {"net": {"width": 64}, "depth": 2},
        "lr": 0.1,
    }


@pytest.mark.parametrize("names", [["policy", "policy.width"], ["policy.width", "policy"]])
def test_a_name_that_is_a_value_and_a_prefix_loses_neither(names):
    values = {"policy": "mlp", "policy.width": 64}
    assert nested({name: values[name] for name in names}) == values


@pytest.mark.parametrize("name", [".", "a..b", ".a", "a.", ""])
def test_dots_that_separate_nothing_stay(name):
    assert nested({name: 1, "a.b": 2}) == {name: 1, "a": {"b": 2}}


def test_numpy_numbers_become_pythons():
    (value,) = nested({"x": np.int64(3)}).values()
    assert type(value) is int


def test_merging_keeps_both_and_prefers_the_second():
    under = {"a": {"x": 1, "y": 2}, "b": 1, "c": {"z": 1}}
    over = {"a": {"y": 3}, "b": {"q": 1}, "c": 5}
    assert merged(under, over) == {"a": {"x": 1, "y": 3}, "b": {"q": 1}, "c": 5}


def test_a_metric_called_like_the_step_steps_aside():
    assert with_step({"global_step": 0.5, "a": 1.0}, 7) == {
        "global_step": 7,
        "metrics/global_step": 0.5,
        "a": 1.0,
    }


def test_the_best_of_a_metric_is_its_highest_or_lowest_by_its_name():
    assert summary_of("episode/return") == summary_of("eval/accuracy") == "last,max"
    assert summary_of("train/value_loss") == "last,min"
    assert summary_of("train/lossless") is None
    assert summary_of("loss/entropy") is None
    assert summary_of("episode/return_min") is None
