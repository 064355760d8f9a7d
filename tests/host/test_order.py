"""Rows that overtake one another come out in order.

A pure test of what the package keeps to itself; through the door see `test_rows.py`.
"""

import random

import pytest
from lerax_dist.host._order import MOST_HELD, Order, are_due, arrive, release, restart


def feed(order, numbers):
    out = []
    for number in numbers:
        order, ready = arrive(order, number, number)
        out += ready
    return order, out


def test_rows_in_order_pass_at_once():
    order, out = feed(Order(), range(1, 50))
    assert out == list(range(1, 50))
    assert not order.held


def test_rows_that_overtake_wait_for_those_before_them():
    order, out = feed(Order(), [1])
    order, out = feed(order, [3, 4])
    assert out == []
    order, out = feed(order, [2])
    assert out == [2, 3, 4]


def test_any_order_within_the_window_comes_out_sorted():
    random.seed(0)
    for _ in range(200):
        numbers = list(range(1, 300))
        for start in range(1, 290, 20):
            block = numbers[start : start + 20]
            random.shuffle(block)
            numbers[start : start + 20] = block
        order, out = feed(Order(), numbers)
        order, rest = release(order)
        assert out + rest == list(range(1, 300))


@pytest.mark.parametrize(
    ("order", "numbers", "are"),
    [
        (Order(), [5, 6, 7], True),
        (Order(due=7, stride=7), [7, 14, 21], True),
        (Order(due=7, stride=7), [7, 14, 22], False),
        (Order(due=7, stride=7), [7, 8, 9], False),
        (Order(due=3), [4, 5], False),
        (Order(due=3), [2, 3], False),
        (Order(due=3), [3, 5, 4], False),
        (Order(due=3, held={5: 5}), [3, 4], False),
    ],
)
def test_rows_that_are_due_are_taken_together_as_they_are_one_by_one(order, numbers, are):
    together = are_due(order, numbers)
    assert (together is not None) == are
    if are:
        assert (together, numbers) == feed(order, numbers)


def test_a_stride_is_no_gap():
    _, out = feed(Order(stride=7), [7, 14, 21, 28])
    assert out == [7, 14, 21, 28]


def test_an_unknown_stride_is_learnt_at_the_first_release():
    order, out = feed(Order(), [10, 20])
    assert out == [10]
    order, rest = release(order)
    assert rest == [20]
    _, out = feed(order, [30, 40, 50])
    assert out == [30, 40, 50]


def test_a_late_row_is_written_all_the_same():
    order, _ = feed(Order(), [1, 2, 3])
    order, out = feed(order, [2])
    assert out == [2]
    assert feed(order, [4])[1] == [4]


def test_a_row_that_never_comes_holds_up_a_window_at_most():
    order, out = feed(Order(), [1, *range(3, MOST_HELD + 10)])
    order, rest = release(order)
    assert out + rest == [1, *range(3, MOST_HELD + 10)]
    assert len(out) > 1


def test_a_restart_gives_what_is_held_and_begins_anywhere():
    order, _ = feed(Order(), [5, 7])
    order, ready = restart(order, 1)
    assert ready == [7]
    assert feed(order, [1, 2])[1] == [1, 2]
