"""Rows that wait for the shares of other processes: matched, merged, and never for ever.

A pure test of what the package keeps to itself; through the door see `test_peers.py`.
"""

import numpy as np
import pytest
from lerax_dist.host._assemble import PlainFormat, PlainTotals, Share
from lerax_dist.host._gather import PATIENCE, Gathering
from lerax_dist.host._parcel import Packer, Unpacker

from lerax_dist._failures import Failures, LoggingWarning

NAMES = ("a", "b")


def share(number, *values, names=NAMES):
    totals = PlainTotals(number, np.array(values or (number, -number), float))
    return Share(PlainFormat(names), totals, number, 0.0, None, number, 8)


def theirs(*shares):
    """What another process has sent, as it arrives."""
    return Unpacker().unpack(Packer().pack(shares))


def sent(packer, *shares):
    message = packer.pack(shares)
    packer.sent(message)
    return message


@pytest.fixture
def failures():
    return Failures()


@pytest.fixture
def gathering(failures):
    return Gathering(["h0", "h1", "h2"], failures)


def values(items):
    return [item.totals[1].tolist() if isinstance(item, Share) else item for item in items]


def test_a_row_is_ready_once_every_share_is_there(gathering):
    gathering.put([share(1, 0.0, 3.0)], 0.0)
    assert gathering.ready(0.0) == []
    gathering.arrive(1, theirs(share(1, 3.0, 6.0), share(2)), 0.0)
    assert gathering.ready(0.0) == []
    gathering.arrive(2, theirs(share(1, 6.0, 0.0)), 0.0)
    assert values(gathering.ready(0.0)) == [[3.0, 3.0]]
    assert not gathering.waits


def test_what_is_no_row_keeps_its_place(gathering):
    gathering.put(["before"], 0.0)
    gathering.put([share(1)], 0.0)
    gathering.put(["after"], 0.0)
    assert gathering.ready(0.0) == ["before"]
    gathering.arrive(1, theirs(share(1)), 0.0)
    gathering.arrive(2, theirs(share(1)), 0.0)
    assert values(gathering.ready(0.0)) == [[1.0, -1.0], "after"]


def test_a_process_that_sends_nothing_is_named_and_left_out(gathering, failures):
    gathering.put([share(1, 0.0, 0.0)], 0.0)
    gathering.arrive(1, theirs(share(1, 2.0, 2.0), share(2, 2.0, 2.0)), 0.0)
    assert gathering.ready(PATIENCE - 1) == []
    with pytest.warns(
        LoggingWarning, match=r"process 2 \(h2\): has sent nothing in 300 s, while row 1 waits"
    ):
        assert values(gathering.ready(PATIENCE)) == [[1.0, 1.0]]
    # From then on nobody waits for it.
    gathering.put([share(2, 0.0, 0.0)], PATIENCE)
    assert values(gathering.ready(PATIENCE)) == [[1.0, 1.0]]
    assert len(failures.all()) == 1


def test_a_process_that_is_slower_is_waited_for_as_long_as_it_sends(gathering, failures):
    for number in range(1, 5):
        gathering.put([share(number, 0.0, 0.0)], 0.0)
    gathering.end(2, "finished")
    now = 0.0
    for number in range(1, 5):
        # The rows of process 0 wait longer and longer.
        now += PATIENCE - 1
        assert gathering.ready(now) == []
        gathering.arrive(1, theirs(share(number, 2.0, 2.0)), now)
        assert values(gathering.ready(now)) == [[1.0, 1.0]]
    assert failures.all() == ()
    gathering.put([share(5)], now)
    with pytest.warns(LoggingWarning, match="has sent nothing in 300 s, while row 5"):
        assert values(gathering.ready(now + PATIENCE)) == [[5.0, -5.0]]


def test_at_the_end_rows_wait_until_its_deadline_however_old_they_are(gathering):
    for number in (1, 2):
        gathering.put([share(number, 0.0, 0.0)], 0.0)
    gathering.end(2, "finished")
    gathering.arrive(1, [], 1000.0)
    assert gathering.ready(1000.0, 1042.0) == []
    gathering.arrive(1, theirs(share(1, 2.0, 2.0)), 1041.0)
    assert values(gathering.ready(1041.0, 1042.0)) == [[1.0, 1.0]]
    with pytest.warns(LoggingWarning, match="had not sent its share of row 2.*longer `timeout`"):
        assert values(gathering.ready(1042.0, 1042.0)) == [[0.0, 0.0]]


def test_a_process_that_is_far_ahead_has_to_wait(gathering):
    shares = [share(number, names=tuple(f"m{k}" for k in range(2))) for number in range(1, 10_001)]
    assert not gathering.is_ahead(1)
    gathering.arrive(1, theirs(*shares), 0.0)
    assert gathering.is_ahead(1) and not gathering.is_ahead(2)
    gathering.end(2, "finished")
    gathering.put(shares, 0.0)
    assert len(gathering.ready(0.0)) == 10_000
    assert not gathering.is_ahead(1)


def test_a_process_that_had_to_wait_is_not_taken_for_a_silent_one(gathering, failures):
    gathering.put([share(number, 0.0, 0.0) for number in (1, 2)], 0.0)
    # All the while process 2 hangs, nobody listens to process 1, which is ahead.
    gathering.arrive(1, theirs(share(1, 2.0, 2.0)), 0.0)
    with pytest.warns(LoggingWarning, match=r"process 2 \(h2\): has sent nothing in 300 s"):
        assert values(gathering.ready(PATIENCE)) == [[1.0, 1.0]]
    assert gathering.ready(PATIENCE + 1) == []
    gathering.arrive(1, theirs(share(2, 4.0, 4.0)), PATIENCE + 1)
    assert values(gathering.ready(PATIENCE + 1)) == [[2.0, 2.0]]
    assert len(failures.all()) == 1


def test_what_was_sent_before_the_end_counts(gathering, failures):
    gathering.arrive(1, theirs(share(1, 3.0, 3.0)), 0.0)
    gathering.end(1, "finished")
    gathering.end(2, "finished")
    gathering.put([share(1, 1.0, 1.0)], 0.0)
    gathering.put([share(2, 5.0, 5.0)], 0.0)
    assert values(gathering.ready(0.0)) == [[2.0, 2.0], [5.0, 5.0]]
    assert failures.all() == ()


def test_shares_of_other_iterations_are_left_out_and_told(gathering, failures):
    for number in (2, 4):
        gathering.put([share(number, 0.0, 0.0)], 0.0)
    gathering.arrive(1, theirs(share(1), share(2, 3.0, 3.0), share(4, 3.0, 3.0)), 0.0)
    with pytest.warns(LoggingWarning) as warned:
        gathering.arrive(2, theirs(share(3, 9.0, 9.0), share(4, 3.0, 3.0)), 0.0)
        rows = values(gathering.ready(0.0))
    assert rows == [[1.5, 1.5], [2.0, 2.0]]
    assert {str(w.message).split(",")[0] for w in warned} == {
        "process 1 (h1): sends row 1",
        "process 2 (h2): sends row 3",
    }


def test_other_metrics_are_named(gathering):
    gathering.put([share(1, 1.0, 1.0)], 0.0)
    gathering.arrive(1, theirs(share(1, 3.0, 4.0, 5.0, names=("a", "b", "c"))), 0.0)
    gathering.arrive(2, theirs(share(1, 3.0, names=("a",))), 0.0)
    with pytest.warns(LoggingWarning) as warned:
        assert values(gathering.ready(0.0)) == [[1.0, 1.0]]
    told = sorted(str(w.message) for w in warned)
    assert "sends the metrics c, but process 0 has none of these" in told[0]
    assert "sends less, but process 0 has b" in told[1]


def test_names_travel_once_and_numbers_to_the_last_bit():
    packer, unpacker = Packer(), Unpacker()
    first = sent(packer, share(1, 0.1, np.nan))
    second = sent(packer, share(2, np.inf, 1e-320))
    assert first["names"] == [NAMES] and second["names"] == []
    (one,), (two,) = unpacker.unpack(first), unpacker.unpack(second)
    assert one.names == two.names == NAMES
    np.testing.assert_array_equal(one.totals[1], [0.1, np.nan])
    np.testing.assert_array_equal(two.totals[1], [np.inf, 1e-320])


def test_names_in_a_message_that_did_not_leave_travel_again():
    packer, unpacker = Packer(), Unpacker()
    packer.pack([share(1, 1.0, names=("a",))])
    for names in (("b",), ("a",), ("b",)):
        (read,) = unpacker.unpack(sent(packer, share(1, 1.0, names=names)))
        assert read.names == names
