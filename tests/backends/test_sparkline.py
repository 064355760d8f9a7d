import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lerax_dist.backends._sparkline import draw_sparklines


def drawn(*values: float, width: int = 12) -> str:
    return draw_sparklines(np.array(values)[:, None], width)[0]


def test_it_goes_from_the_lowest_to_the_highest():
    assert drawn(0, 1, 2, 3, 4, 5, 6, 7) == "▁▂▃▄▅▆▇█"


def test_each_metric_has_its_own_scale():
    assert draw_sparklines(np.array([[0.0, 5.0], [1.0, -1e6]]), 8) == ["▁█", "█▁"]


def test_more_points_than_characters_are_averaged():
    assert drawn(0, 0, 7, 7, 0, 14, width=3) == "▁██"


def test_a_metric_that_comes_rarely_keeps_its_value_in_between():
    assert drawn(math.nan, 0, math.nan, 1, math.nan) == " ▁▁██"


def test_what_was_not_finite_shows():
    assert drawn(0, math.inf, 1) == "▁×█"


@pytest.mark.parametrize("value", [0.0, 3.0, 1e308])
def test_a_constant_is_level(value):
    assert drawn(value, value, value * (1 + 1e-15)) == "▁▁▁"


def test_without_rows_it_is_empty():
    assert draw_sparklines(np.empty((0, 2)), 5) == ["", ""]


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)),
    st.integers(1, 20),
)
def test_any_values_fit(points, width):
    lines = draw_sparklines(points, width)
    assert [len(line) for line in lines] == [min(width, len(points))] * points.shape[1]
