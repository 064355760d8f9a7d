import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist.backends._chart import draw_line, resample


def test_a_rise_goes_from_the_lowest_left_to_the_highest_right():
    assert draw_line([0.0, 1.0], width=4, height=2) == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]


def test_a_fall_is_its_mirror_image():
    assert draw_line([1.0, 0.0], width=4, height=2) == ["⠑⢄⠀⠀", "⠀⠀⠑⢄"]


def test_a_jump_is_a_line_without_holes():
    rows = draw_line([0.0] * 8 + [1.0] * 8, width=8, height=4)
    assert all(any(char != "⠀" for char in row) for row in rows)


def test_a_constant_is_a_line_in_the_middle():
    assert draw_line([3.0, 3.0, 3.0], width=3, height=3) == ["⠀⠀⠀", "⠤⠤⠤", "⠀⠀⠀"]


def test_one_value_is_a_line():
    (row,) = draw_line([3.0], width=5, height=1)
    assert "⠀" not in row


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_to_draw_is_blank(values):
    assert draw_line(values, width=3, height=2) == ["⠀⠀⠀", "⠀⠀⠀"]


def test_a_value_that_is_not_finite_is_a_gap():
    (row,) = draw_line([1.0, 1.0, math.nan, 1.0, 1.0], width=10, height=1)
    assert "⠀" in row.strip("⠀")


def test_more_values_than_columns_are_averaged():
    assert resample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]


def test_fewer_values_than_columns_are_joined_by_lines():
    assert resample([0.0, 4.0], 5) == [0.0, 1.0, 2.0, 3.0, 4.0]


@given(st.lists(st.floats(width=64), max_size=200), st.integers(1, 60), st.integers(1, 20))
def test_any_values_fill_the_size_asked_for(values, width, height):
    rows = draw_line(values, width, height)
    assert [len(row) for row in rows] == [width] * height
    assert all(0x2800 <= ord(char) <= 0x28FF for row in rows for char in row)
