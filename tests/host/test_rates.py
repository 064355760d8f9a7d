"""How fast a run is, from its rows.

A pure test of what the package keeps to itself; through the door see `test_rows.py`.
"""

import math

from lerax_dist.host._rates import Rates, advance, start


def test_rates_are_of_the_time_since_the_row_before():
    rates, _ = advance(Rates(), 10.0, 1000, 5)
    rates, metrics = advance(rates, 12.0, 5000, 9)
    assert metrics == (2000.0, 0.5)


def test_the_first_row_has_none_without_a_start():
    assert all(map(math.isnan, advance(Rates(), 10.0, 1000, 5)[1]))


def test_a_fresh_training_starts_at_step_0():
    _, metrics = advance(start(10.0, 0), 12.0, 1000, 1)
    assert metrics == (500.0, 2.0)


def test_a_resumed_training_does_not_count_the_steps_before_it():
    _, metrics = advance(start(10.0, 7), 12.0, 8000, 8)
    assert math.isnan(metrics[0]) and metrics[1] == 2.0


def test_a_clock_that_stands_still_gives_no_rate():
    rates, _ = advance(Rates(), 10.0, 1000, 5)
    assert all(map(math.isnan, advance(rates, 10.0, 2000, 6)[1]))
