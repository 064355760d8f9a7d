import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lerax_dist.backends.console._chart import bounds, draw_curves, draw_sparklines, resample


def curve(values, steps=None):
    steps = range(len(values)) if steps is None else steps
    return np.array(steps, np.float64), np.array(values, np.float64)


def drawn(values, width: int, height: int, steps=None) -> list[str]:
    rows = draw_curves([curve(values, steps)], width, height)
    return ["".join(char for char, _ in row) for row in rows]


def test_a_rise_goes_from_the_lowest_left_to_the_highest_right():
    assert drawn([0.0, 1.0], width=4, height=2) == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]


def test_a_fall_is_its_mirror_image():
    assert drawn([1.0, 0.0], width=4, height=2) == ["⠑⢄⠀⠀", "⠀⠀⠑⢄"]


def test_a_jump_is_a_line_without_holes():
    rows = drawn([0.0] * 8 + [1.0] * 8, width=8, height=4)
    assert all(any(char != "⠀" for char in row) for row in rows)


def test_a_constant_is_a_line_in_the_middle():
    assert drawn([3.0, 3.0, 3.0], width=3, height=3) == ["⠀⠀⠀", "⠤⠤⠤", "⠀⠀⠀"]


def test_one_value_is_a_line():
    (row,) = drawn([3.0], width=5, height=1)
    assert "⠀" not in row


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_to_draw_is_blank(values):
    assert drawn(values, width=3, height=2) == ["⠀⠀⠀", "⠀⠀⠀"]


def test_a_value_that_is_not_finite_is_a_gap():
    (row,) = drawn([1.0, 1.0, math.nan, 1.0, 1.0], width=10, height=1)
    assert "⠀" in row.strip("⠀")


def test_what_lies_between_two_steps_is_between_their_columns():
    assert resample(curve([0.0, 4.0], [0, 100]), 5, 0, 100) == [0.0, 1.0, 2.0, 3.0, 4.0]
    found = resample(curve([0.0, 1.0, 1.0], [0, 25, 100]), 5, 0, 100)
    assert found == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_a_curve_takes_its_part_of_the_steps_of_all():
    found = resample(curve([1.0, 2.0], [50, 100]), 5, 0, 200)
    assert found[1:3] == [1.0, 2.0]
    assert [math.isnan(value) for value in found] == [True, False, False, True, True]


def test_more_values_than_columns_are_averaged():
    assert resample(curve([1.0, 3.0, 5.0, 7.0], [0, 1, 9, 10]), 2, 0, 10) == [2.0, 6.0]


def test_steps_that_go_back_are_drawn_in_their_place():
    assert resample(curve([2.0, 0.0], [100, 0]), 3, 0, 100) == [0.0, 1.0, 2.0]


def test_the_curves_share_one_scale_and_keep_their_owners():
    low, high = curve([0.0, 0.0]), curve([1.0, 1.0])
    assert bounds([low, high]) == (0.0, 1.0, 0.0, 1.0)
    rows = draw_curves([low, high], width=3, height=2)
    assert [{owner for _, owner in row} for row in rows] == [{1}, {0}]


@given(st.lists(st.floats(width=64), max_size=200), st.integers(1, 60), st.integers(1, 20))
def test_any_values_fill_the_size_asked_for(values, width, height):
    rows = drawn(values, width, height)
    assert [len(row) for row in rows] == [width] * height
    assert all(0x2800 <= ord(char) <= 0x28FF for row in rows for char in row)


def spark(*values: float) -> str:
    return draw_sparklines(np.array(values)[:, None])[0]


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert spark(0, 1, 2, 3, 4, 5, 6, 7) == "▁▂▃▄▅▆▇█"


def test_each_sparkline_has_its_own_scale():
    assert draw_sparklines(np.array([[0.0, 5.0], [1.0, -1e6]])) == ["▁█", "█▁"]


def test_a_metric_that_comes_rarely_keeps_its_value_in_between():
    assert spark(math.nan, 0, math.nan, 1, math.nan) == " ▁▁██"


def test_a_sparkline_shows_what_was_not_finite():
    assert spark(0, math.inf, 1) == "▁×█"


@pytest.mark.parametrize("value", [0.0, 3.0, 1e308])
def test_the_sparkline_of_a_constant_is_level(value):
    assert spark(value, value, value * (1 + 1e-15)) == "▁▁▁"


def test_a_sparkline_without_rows_is_empty():
    assert draw_sparklines(np.empty((0, 2))) == ["", ""]


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_values_make_a_character_each(points):
    lines = draw_sparklines(points)
    assert [len(line) for line in lines] == [len(points)] * points.shape[1]
