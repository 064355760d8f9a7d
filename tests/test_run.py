from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from lerax_dist._run import check_hparams, check_name, check_step, choose_log_dir, make_name

NOW = datetime(2026, 1, 31, 12, 30, 45)


def test_a_name_is_made_of_policy_environment_and_time():
    env, policy = SimpleNamespace(name="CartPole"), SimpleNamespace(name="MLP")
    assert make_name(env, policy, NOW) == "MLP_CartPole_20260131_123045"
    assert make_name(env, None, NOW) == "CartPole_20260131_123045"
    assert make_name(None, None, NOW) == "20260131_123045"


def test_what_has_no_name_goes_by_its_class():
    assert make_name(3, None, NOW) == "int_20260131_123045"
    assert make_name(int, None, NOW) == "int_20260131_123045"
    assert make_name(None, None, "4711") == "4711"


def test_a_made_name_never_leaves_its_folder():
    for name in ("../../etc", "a/b", "a\nb", "..", "ALE/Pong-v5"):
        made = make_name(SimpleNamespace(name=name), None, NOW)
        assert check_name(made) == made
        assert "/" not in made


@pytest.mark.parametrize("name", ["run", "group/run 1", "ppo-α", ".hidden", "a..b"])
def test_a_relative_path_is_a_good_name(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["a/b/", "a//b", "./a/b", "a/./b"])
def test_a_name_is_written_in_one_way(name):
    assert check_name(name) == "a/b"


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "", "  ", ".", "a\nb", "a\x00", "a\\b"]
)
def test_a_name_that_leaves_the_folder_or_is_empty_is_refused(name):
    with pytest.raises(ValueError, match="`name`.*relative path inside `log_dir`"):
        check_name(name)


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="`name` must be a string or None, got 3"):
        check_name(3)


def test_the_folder_is_the_given_one_else_the_backends_else_logs():
    backends = [SimpleNamespace(), SimpleNamespace(log_dir=Path("/scratch/a"))]
    assert choose_log_dir("x", backends) == Path("x")
    assert choose_log_dir(None, backends) == Path("/scratch/a")
    assert choose_log_dir(None, backends[:1]) == Path("logs")


def test_a_step_is_an_integer_of_any_kind():
    import numpy as np

    assert check_step(np.int64(10**12)) == 10**12


@pytest.mark.parametrize("step", [1.0, "1", None, True, [1]])
def test_a_step_that_is_no_integer_is_refused(step):
    with pytest.raises(TypeError, match="`step` must be an integer, got"):
        check_step(step)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="`step` must be 0 or more, got -1"):
        check_step(-1)


def test_nested_hyperparameters_get_dotted_names():
    assert check_hparams({"a": {"b": 1}, "c": "x"}) == {"a.b": 1, "c": "x"}
    assert check_hparams(None) == {}


def test_hyperparameters_that_are_no_mapping_are_refused():
    with pytest.raises(TypeError, match="`hparams` must be a mapping"):
        check_hparams([1])
    with pytest.raises(TypeError, match="names are strings"):
        check_hparams({1: 2})
