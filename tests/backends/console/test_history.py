import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from lerax_dist.backends.console._history import History


def filled(values, capacity=512, batch=1) -> History:
    history = History(capacity)
    values = np.array(list(values), np.float64).reshape(-1, 1)
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        history.add(["a"], part, list(range(start, start + len(part))))
    return history


def points(history: History, name="a") -> list[float]:
    return history.curve(name)[1].tolist()


def test_few_values_are_kept_as_they_are():
    steps, values = filled([1.0, 2.0, 3.0]).curve("a")
    assert (steps.tolist(), values.tolist()) == ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("count", [100, 1_000, 12_345])
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_many_values_are_few_points_over_all_of_them(count, batch):
    steps, values = filled(range(count), capacity=64, batch=batch).curve("a")
    assert 32 <= len(values) <= 64 + 1
    # The value is the step, so each point must lie on the diagonal.
    np.testing.assert_array_equal(steps, values)
    assert values[0] < count / 32
    assert values[-1] > count * (1 - 1 / 16)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_a_point_is_the_mean_of_what_it_stands_for(batch):
    values = [1.0, 3.0, 5.0, 7.0, 9.0]
    assert points(filled(values, capacity=4, batch=batch)) == [2.0, 6.0, 9.0]


def test_values_that_are_not_finite_do_not_spoil_their_neighbors():
    assert points(filled([math.nan, 2.0, 4.0, math.inf], capacity=4)) == [2.0, 4.0]


def test_nothing_but_nan_is_a_gap():
    first, second = points(filled([math.nan, math.nan, 1.0, 1.0], capacity=4))
    assert math.isnan(first)
    assert second == 1.0


def test_a_metric_that_comes_now_and_then_has_points_where_it_came():
    history = History()
    for step in range(10):
        history.add(["a"], np.array([[1.0]]), [step])
        if step % 4 == 0:
            history.add(["b", "a"], np.array([[float(step), 2.0]]), [step])
    steps, values = history.curve("b")
    assert (steps.tolist(), values.tolist()) == ([0.0, 4.0, 8.0], [0.0, 4.0, 8.0])
    assert len(points(history)) == 13
    assert points(history, "none") == []


def test_rows_that_were_superseded_are_dropped():
    history = filled(range(10))
    history.drop(4)
    assert points(history) == [0.0, 1.0, 2.0, 3.0]
    history.add(["a"], np.array([[44.0]]), [4])
    assert points(history) == [0.0, 1.0, 2.0, 3.0, 44.0]


def test_a_point_that_is_not_whole_is_dropped_too():
    history = filled(range(9), capacity=4)
    history.drop(8)
    assert points(history) == [1.5, 5.5]


def test_a_table_has_as_many_points_as_asked_for_each_a_mean():
    history = filled([0.0, 0.0, 7.0, 7.0, math.inf, 14.0])
    assert history.table(3)[1].tolist() == [[0.0], [7.0], [14.0]]
    assert history.table(6)[1].tolist() == [[0.0], [0.0], [7.0], [7.0], [math.inf], [14.0]]
    assert filled(range(12_345)).table(12)[1].shape == (12, 1)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_values_have_means_without_a_warning(values):
    history = History(8)
    history.add([str(i) for i in range(values.shape[1])], values, range(len(values)))
    names, points = history.table(5)
    assert 1 <= len(points) <= 5
    assert len(names) == points.shape[1] == values.shape[1]
