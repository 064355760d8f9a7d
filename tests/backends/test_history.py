import math

import pytest

from lerax_dist.backends._history import History


def filled(values, capacity=512) -> History:
    history = History(capacity)
    for value in values:
        history.add(value)
    return history


def test_few_values_are_kept_as_they_are():
    assert filled([1.0, 2.0, 3.0]).points() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("count", [100, 1_000, 12_345, 100_000])
def test_many_values_are_few_points_over_all_of_them(count):
    points = filled(map(float, range(count)), capacity=64).points()
    assert 32 <= len(points) <= 64 + 1
    assert points == sorted(points)
    assert points[0] < count / 32
    assert points[-1] > count * (1 - 1 / 16)


def test_a_point_is_the_mean_of_what_it_stands_for():
    assert filled([1.0, 3.0, 5.0, 7.0, 9.0], capacity=4).points() == [2.0, 6.0, 9.0]


def test_values_that_are_not_finite_do_not_spoil_their_neighbours():
    assert filled([math.nan, 2.0, 4.0, math.inf], capacity=4).points() == [2.0, 4.0]


def test_nothing_but_nan_is_a_gap():
    first, second = filled([math.nan, math.nan, 1.0, 1.0], capacity=4).points()
    assert math.isnan(first)
    assert second == 1.0
