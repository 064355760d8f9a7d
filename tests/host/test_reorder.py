"""Parts of messages become rows, and rows that overtake one another come out in order.

A pure test of what the package keeps to itself; through the door see `test_rows.py`.
"""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist._failures import Failures
from lerax_dist._schema import Schema, Totals
from lerax_dist.host._queue import Packet
from lerax_dist.host._rows import (
    MAX_HELD,
    PartialRow,
    Reassembler,
    ReorderBuffer,
    StepSorter,
)

SCHEMA, OTHER = (Schema(("x",), dtype=np.dtype(np.float32)) for _ in range(2))


def part(index, number, x, schema=SCHEMA):
    """One of the two parts of a message with one row: count and iteration, or its value."""
    body = [1, number] if index == 0 else np.array([x], np.float32).view(np.int32).tolist()
    payload = np.array([number, *body], np.int32)
    return Packet(schema, index, 2, payload, 1, 0.0, 0.0)


def rows(reassembler, *packets):
    return [(row.number, row.totals.plain.tolist()) for row in reassembler.add_packets(packets)]


def test_a_row_is_there_with_its_last_part_in_whatever_order_they_come():
    reassembler = Reassembler(Failures(), discard=lambda size: None)
    assert rows(reassembler, part(1, 1, 10.0), part(0, 2, 20.0)) == []
    found = rows(reassembler, part(0, 1, 10.0), part(1, 2, 20.0))
    assert found == [(1, [10.0]), (2, [20.0])]


def test_a_part_of_a_training_that_died_is_not_mixed_into_the_next():
    reassembler = Reassembler(Failures(), discard=lambda size: None)
    assert rows(reassembler, part(1, 1, 99.0)) == []
    reassembler.restart(1)
    assert rows(reassembler, part(0, 1, 10.0)) == []
    assert rows(reassembler, part(1, 1, 10.0)) == [(1, [10.0])]


def test_parts_of_other_metrics_in_the_same_iteration_are_kept_apart():
    reassembler = Reassembler(Failures(), discard=lambda size: None)
    assert rows(reassembler, part(0, 1, 10.0), part(1, 1, 12.0, OTHER)) == []
    assert rows(reassembler, part(1, 1, 10.0)) == [(1, [10.0])]
    assert rows(reassembler, part(0, 1, 12.0, OTHER)) == [(1, [12.0])]


def test_a_restart_gives_what_is_held_and_begins_anywhere():
    reassembler = Reassembler(Failures(), discard=lambda size: None)
    both = [part(i, number, number) for number in (5, 7) for i in (0, 1)]
    assert rows(reassembler, *both) == [(5, [5.0])]
    assert [row.number for row in reassembler.restart(1)] == [7]
    both = [part(i, number, number) for number in (1, 2) for i in (0, 1)]
    assert rows(reassembler, *both) == [(1, [1.0]), (2, [2.0])]


def feed(order, numbers):
    out = []
    for number in numbers:
        order, ready = order.arrive(number, number)
        out += ready
    return order, out


def test_rows_in_order_pass_at_once():
    order, out = feed(ReorderBuffer(), range(1, 50))
    assert out == list(range(1, 50))
    assert not order.held


def test_rows_that_overtake_wait_for_those_before_them():
    order, out = feed(ReorderBuffer(), [1])
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
        order, out = feed(ReorderBuffer(), numbers)
        order, rest = order.release()
        assert out + rest == list(range(1, 300))


def test_two_rows_of_one_iteration_that_overtake_the_one_before_are_both_kept():
    """A program that logs training and evaluation in the same iteration."""
    order, out = ReorderBuffer(), []
    for number, row in [(1, "1"), (3, "3 training"), (3, "3 evaluation"), (2, "2")]:
        order, ready = order.arrive(number, row)
        out += ready
    assert out == ["1", "2", "3 training", "3 evaluation"]
    assert not order.held


_NUMBERS = st.lists(st.integers(0, 200), max_size=200)
_ARRIVALS = _NUMBERS.map(lambda numbers: list(enumerate(numbers)))


@given(_ARRIVALS, st.integers(1, 7))
def test_whatever_comes_comes_out_once(arrivals, stride):
    """Any order, with repetitions and gaps."""
    order, out = ReorderBuffer(stride=stride), []
    for arrival in arrivals:
        order, ready = order.arrive(arrival[1], arrival)
        out += ready
        assert sum(map(len, order.held.values())) <= MAX_HELD
    order, rest = order.release()
    assert sorted(out + rest) == arrivals and not order.held


@given(st.permutations(range(MAX_HELD)), st.integers(1, 7), st.data())
def test_any_order_of_a_window_with_repetitions_comes_out_sorted(numbers, stride, data):
    arrivals = [number for number in numbers for _ in range(data.draw(st.integers(1, 2)))]
    arrivals = data.draw(st.permutations(arrivals[: MAX_HELD - 1]))
    order, out = ReorderBuffer(stride=stride).arrive(-stride, -1)
    for number in arrivals:
        order, ready = order.arrive(number * stride, number)
        out += ready
    order, rest = order.release()
    seen, late = [], []
    for number in out + rest:
        # A repetition of one that has passed is written at once, in no place of its own.
        (late if number in seen else seen).append(number)
    assert seen == [-1, *sorted(set(arrivals))]
    assert sorted(seen + late) == sorted([-1, *arrivals])


@pytest.mark.parametrize(
    ("order", "numbers", "are"),
    [
        (ReorderBuffer(), [5, 6, 7], True),
        (ReorderBuffer(due=7, stride=7), [7, 14, 21], True),
        (ReorderBuffer(due=7, stride=7), [7, 14, 22], False),
        (ReorderBuffer(due=7, stride=7), [7, 8, 9], False),
        (ReorderBuffer(due=3), [4, 5], False),
        (ReorderBuffer(due=3), [2, 3], False),
        (ReorderBuffer(due=3), [3, 5, 4], False),
        (ReorderBuffer(due=3, held={5: [5]}), [3, 4], False),
    ],
)
def test_rows_that_are_due_are_taken_together_as_they_are_one_by_one(order, numbers, are):
    after = order.follow(numbers)
    assert (after is not None) == are
    if are:
        assert (after, numbers) == feed(order, numbers)


def test_a_stride_is_no_gap():
    _, out = feed(ReorderBuffer(stride=7), [7, 14, 21, 28])
    assert out == [7, 14, 21, 28]


def test_an_unknown_stride_is_learnt_at_the_first_release():
    order, out = feed(ReorderBuffer(), [10, 20])
    assert out == [10]
    order, rest = order.release()
    assert rest == [20]
    _, out = feed(order, [30, 40, 50])
    assert out == [30, 40, 50]


def test_a_late_row_is_written_all_the_same():
    order, _ = feed(ReorderBuffer(), [1, 2, 3])
    order, out = feed(order, [2])
    assert out == [2]
    assert feed(order, [4])[1] == [4]


def test_a_row_that_never_comes_holds_up_a_window_at_most():
    order, out = feed(ReorderBuffer(), [1, *range(3, MAX_HELD + 10)])
    order, rest = order.release()
    assert out + rest == [1, *range(3, MAX_HELD + 10)]
    assert len(out) > 1


def emitted(step, value=0.0, schema=SCHEMA):
    totals = Totals(1, np.array([value]), np.zeros(0), np.zeros(0), step)
    return PartialRow(schema, totals, step, 0.0, None, step, 8)


def through_sorter(looks):
    """Steps of rows of `emit` in the order in which they come out, given those of each look."""
    sorter, out = StepSorter(), []
    for steps in looks:
        for step in steps:
            out += sorter.add(emitted(step))
        out += sorter.look()
    return [row.number for row in out + sorter.release()]


@pytest.mark.parametrize(
    ("looks", "out"),
    [
        # The first wakes the worker; those that it has overtaken come at the next look.
        ([[3], [2, 1, 0], [7, 6], [5, 4]], [0, 1, 2, 3, 4, 5, 6, 7]),
        # With gaps, and with steps that come again or begin anew, also before the first are out.
        ([[10, 30, 20], [1000]], [10, 20, 30, 1000]),
        ([[0, 1, 2, 0, 1, 2]], [0, 1, 2, 0, 1, 2]),
        ([[0, 1, 2], [], [0, 1, 2]], [0, 1, 2, 0, 1, 2]),
        ([[97], [98, 99], [0, 1]], [97, 98, 99, 0, 1]),
        ([[5, 5, 5]], [5, 5, 5]),
    ],
)
def test_rows_of_emit_come_in_the_order_of_their_steps(looks, out):
    assert through_sorter(looks) == out


def test_a_row_of_emit_waits_for_one_look_and_for_no_other_row():
    sorter = StepSorter()
    assert sorter.add(emitted(7)) == [] == sorter.look()
    assert sorter.is_waiting
    assert [row.number for row in sorter.look()] == [7]
    assert not sorter.is_waiting


def test_rows_of_emit_are_none_that_rows_of_iterations_wait_for():
    """In one message of the queue, and with another stride."""
    own = Schema(("y",), dtype=np.dtype(np.float32), step_devices=1, unit=1)
    value = np.array([1.0, 200, 0, 0, 0, 0, 0, 0], np.float32).view(np.int32).tolist()
    packet = Packet(own, 0, 1, np.array([0, 1, 0, *value], np.int32), 1, 0.0, 0.0)
    reassembler = Reassembler(Failures(), discard=lambda size: None)
    both = [part(i, 7, 7.0)._replace(stride=7) for i in (0, 1)]
    assert rows(reassembler, packet, *both) == [(7, [7.0])]
    both = [part(i, 14, 14.0)._replace(stride=7) for i in (0, 1)]
    assert rows(reassembler, *both) == [(14, [14.0])]
    (row,) = reassembler.release()
    assert (row.number, row.clock, row.totals.plain.tolist()) == (200, None, [1.0])
