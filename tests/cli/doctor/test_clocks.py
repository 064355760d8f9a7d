"""Clock comparison: the truth is always within the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist.cli.doctor._clocks import compare_clocks

delays = st.floats(0.0, 3.0)


@given(st.floats(-100.0, 100.0), st.lists(st.tuples(delays, delays), min_size=1, max_size=12))
def test_the_truth_is_within_the_bound(offset: float, ways: list[tuple[float, float]]):
    rounds = []
    for number, (there, back) in enumerate(ways):
        sent = 1000.0 + 10 * number
        rounds.append((sent, sent + there + offset, sent + there + back))
    clock = compare_clocks(rounds)
    assert abs(clock.offset - offset) <= clock.bound + 1e-6
    # No worse than the quickest round alone, and rounds that are slow on one side only help.
    assert clock.bound <= min(there + back for there, back in ways) / 2 + 1e-6


def test_a_clock_that_was_set_meanwhile_is_not_certain():
    clock = compare_clocks([(0.0, 0.001, 0.002), (1.0, 6.001, 1.002)])
    assert clock.bound == pytest.approx(2.499)
