"""The pace of a run, from its rows.

A pure test of what the package keeps to itself; through the door see `test_rows.py`.
"""

import math

from lerax_dist.host._rows import Pace


def test_the_pace_is_of_the_time_since_the_row_before():
    pace, *_ = Pace().advance(10.0, 1000, 5, 5)
    assert pace.advance(12.0, 5000, 9, 9)[1:] == (2000.0, 0.5)


def test_the_first_row_has_none_without_a_start():
    assert all(map(math.isnan, Pace().advance(10.0, 1000, 5, 5)[1:]))


def test_a_fresh_training_starts_at_step_0():
    assert Pace.start(10.0, 0).advance(12.0, 1000, 1, 1)[1:] == (500.0, 2.0)


def test_a_resumed_training_does_not_count_the_steps_before_it():
    _, steps, seconds = Pace.start(10.0, 7).advance(12.0, 8000, 8, 8)
    assert math.isnan(steps) and seconds == 2.0


def test_a_clock_that_stands_still_gives_no_pace():
    pace, *_ = Pace().advance(10.0, 1000, 5, 5)
    assert all(map(math.isnan, pace.advance(10.0, 2000, 6, 6)[1:]))
