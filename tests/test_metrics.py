import pytest

from lerax_dist._metrics import flatten


def test_nested_names_are_joined_with_a_slash_in_order():
    nested = {"b": {"y": 1, "x": {"z": 2}}, "a": 3}
    assert list(flatten(nested).items()) == [("b/y", 1), ("b/x/z", 2), ("a", 3)]


def test_a_prefix_stands_before_every_name():
    assert flatten({"loss": 1}, "train") == {"train/loss": 1}


def test_two_names_that_collide_after_joining_are_refused():
    with pytest.raises(ValueError, match="'a/b' twice.*Rename"):
        flatten({"a/b": 1, "a": {"b": 2}})


@pytest.mark.parametrize("name", [3, None, ("a",), b"a"])
def test_a_name_that_is_no_string_is_refused_with_its_value(name):
    with pytest.raises(TypeError, match="names are strings"):
        flatten({"a": {name: 1}})


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match="empty name below 'a'"):
        flatten({"a": {"": 1}})


def test_metrics_that_are_no_mapping_are_refused():
    with pytest.raises(TypeError, match="must be a mapping.*got 3"):
        flatten(3)  # pyright: ignore[reportArgumentType]
