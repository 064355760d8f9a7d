"""Rows that wait for the shares of other processes: matched, merged, and never for ever.

A pure test of what the package keeps to itself; through the door see `test_peers.py`.
"""

import dataclasses
import threading
import time
import warnings
from collections import deque
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist._schema import Schema, Totals
from lerax_dist.host._peers import (
    PEER_TIMEOUT,
    Decoder,
    Encoder,
    PeerMerger,
    PeerReceiver,
    PeerRows,
)
from lerax_dist.host._queue import RowQueue
from lerax_dist.host._rows import PartialRow

LIMIT = 20.0
NOTHING = np.zeros(0)

NAMES = ("a", "b")


def row(number, *values, names=NAMES):
    numbers = np.array(values or (number, -number), float)
    totals = Totals(1, numbers, NOTHING, NOTHING, number)
    schema = Schema(names, sums_steps=False)
    return PartialRow(schema, totals, number, 0.0, None, number, 8)


def peer_rows(*rows):
    """What another process has sent, as it arrives."""
    return Decoder().decode(Encoder().encode(rows))


def sent(encoder, *rows):
    message = encoder.encode(rows)
    encoder.sent(message)
    return message


@pytest.fixture
def failures():
    return Failures()


@pytest.fixture
def merger(failures):
    return PeerMerger(["h0", "h1", "h2"], failures)


def values(items):
    return [item.totals.plain.tolist() if isinstance(item, PartialRow) else item for item in items]


def test_a_row_is_ready_once_every_share_is_there(merger):
    merger.put([row(1, 0.0, 3.0)], 0.0)
    assert merger.ready(0.0) == []
    merger.receive(PeerRows(1, peer_rows(row(1, 3.0, 6.0), row(2))), 0.0)
    assert merger.ready(0.0) == []
    merger.receive(PeerRows(2, peer_rows(row(1, 6.0, 0.0))), 0.0)
    assert values(merger.ready(0.0)) == [[3.0, 3.0]]
    assert not merger.is_waiting


def test_what_is_no_row_keeps_its_place(merger):
    merger.put(["before"], 0.0)
    merger.put([row(1)], 0.0)
    merger.put(["after"], 0.0)
    assert merger.ready(0.0) == ["before"]
    merger.receive(PeerRows(1, peer_rows(row(1))), 0.0)
    merger.receive(PeerRows(2, peer_rows(row(1))), 0.0)
    assert values(merger.ready(0.0)) == [[1.0, -1.0], "after"]


def test_a_process_that_sends_nothing_is_named_and_left_out(merger, failures):
    merger.put([row(1, 0.0, 0.0)], 0.0)
    merger.receive(PeerRows(1, peer_rows(row(1, 2.0, 2.0), row(2, 2.0, 2.0))), 0.0)
    assert merger.ready(PEER_TIMEOUT - 1) == []
    with pytest.warns(
        LoggingWarning, match=r"process 2 \(h2\): sent nothing for 300 s while row 1 was waiting"
    ):
        assert values(merger.ready(PEER_TIMEOUT)) == [[1.0, 1.0]]
    # From then on no row waits for it.
    merger.put([row(2, 0.0, 0.0)], PEER_TIMEOUT)
    assert values(merger.ready(PEER_TIMEOUT)) == [[1.0, 1.0]]
    assert len(failures.all()) == 1


def test_a_process_that_is_slower_is_waited_for_as_long_as_it_sends(merger, failures):
    for number in range(1, 5):
        merger.put([row(number, 0.0, 0.0)], 0.0)
    merger.receive(PeerRows(2, [], "finished"), 0.0)
    now = 0.0
    for number in range(1, 5):
        # The rows of process 0 wait longer and longer.
        now += PEER_TIMEOUT - 1
        assert merger.ready(now) == []
        merger.receive(PeerRows(1, peer_rows(row(number, 2.0, 2.0))), now)
        assert values(merger.ready(now)) == [[1.0, 1.0]]
    assert failures.all() == ()
    merger.put([row(5)], now)
    with pytest.warns(LoggingWarning, match="sent nothing for 300 s while row 5"):
        assert values(merger.ready(now + PEER_TIMEOUT)) == [[5.0, -5.0]]


def test_at_the_end_rows_wait_until_its_deadline_however_old_they_are(merger):
    for number in (1, 2):
        merger.put([row(number, 0.0, 0.0)], 0.0)
    merger.receive(PeerRows(2, [], "finished"), 0.0)
    merger.receive(PeerRows(1, []), 1000.0)
    assert merger.ready(1000.0, 1042.0) == []
    merger.receive(PeerRows(1, peer_rows(row(1, 2.0, 2.0))), 1041.0)
    assert values(merger.ready(1041.0, 1042.0)) == [[1.0, 1.0]]
    with pytest.warns(LoggingWarning, match="did not send row 2 before.*raise `timeout`"):
        assert values(merger.ready(1042.0, 1042.0)) == [[0.0, 0.0]]


def test_a_process_that_is_far_ahead_has_to_wait(merger):
    shares = [row(number, names=tuple(f"m{k}" for k in range(2))) for number in range(1, 10_001)]
    assert not merger.is_ahead(1)
    merger.receive(PeerRows(1, peer_rows(*shares)), 0.0)
    assert merger.is_ahead(1) and not merger.is_ahead(2)
    merger.receive(PeerRows(2, [], "finished"), 0.0)
    merger.put(shares, 0.0)
    assert len(merger.ready(0.0)) == 10_000
    assert not merger.is_ahead(1)


def test_a_process_that_had_to_wait_is_not_taken_for_a_silent_one(merger, failures):
    merger.put([row(number, 0.0, 0.0) for number in (1, 2)], 0.0)
    # While process 2 hangs, no message of process 1, which is ahead, is read.
    merger.receive(PeerRows(1, peer_rows(row(1, 2.0, 2.0))), 0.0)
    with pytest.warns(LoggingWarning, match=r"process 2 \(h2\): sent nothing for 300 s"):
        assert values(merger.ready(PEER_TIMEOUT)) == [[1.0, 1.0]]
    assert merger.ready(PEER_TIMEOUT + 1) == []
    merger.receive(PeerRows(1, peer_rows(row(2, 4.0, 4.0))), PEER_TIMEOUT + 1)
    assert values(merger.ready(PEER_TIMEOUT + 1)) == [[2.0, 2.0]]
    assert len(failures.all()) == 1


def test_what_was_sent_before_the_end_counts(merger, failures):
    merger.receive(PeerRows(1, peer_rows(row(1, 3.0, 3.0))), 0.0)
    merger.receive(PeerRows(1, [], "finished"), 0.0)
    merger.receive(PeerRows(2, [], "finished"), 0.0)
    merger.put([row(1, 1.0, 1.0)], 0.0)
    merger.put([row(2, 5.0, 5.0)], 0.0)
    assert values(merger.ready(0.0)) == [[2.0, 2.0], [5.0, 5.0]]
    assert failures.all() == ()


def test_shares_of_other_iterations_are_left_out_and_texts(merger, failures):
    for number in (2, 4):
        merger.put([row(number, 0.0, 0.0)], 0.0)
    merger.receive(PeerRows(1, peer_rows(row(1), row(2, 3.0, 3.0), row(4, 3.0, 3.0))), 0.0)
    with pytest.warns(LoggingWarning) as warned:
        merger.receive(PeerRows(2, peer_rows(row(3, 9.0, 9.0), row(4, 3.0, 3.0))), 0.0)
        rows = values(merger.ready(0.0))
    assert rows == [[1.5, 1.5], [2.0, 2.0]]
    assert {str(w.message).split(" while")[0] for w in warned} == {
        "process 1 (h1): sent row 1",
        "process 2 (h2): sent row 3",
    }


def test_a_row_too_many_does_not_cost_the_rows_behind_it(merger):
    for number in (1, 2):
        merger.put([row(number, 0.0, 0.0)], 0.0)
    merger.receive(PeerRows(2, [], "finished"), 0.0)
    with pytest.warns(LoggingWarning, match="sent row 1 while process 0 expected row 2"):
        merger.receive(PeerRows(1, peer_rows(row(1, 2.0, 2.0), row(1, 9.0, 9.0))), 0.0)
        assert values(merger.ready(0.0)) == [[1.0, 1.0]]
    merger.receive(PeerRows(1, peer_rows(row(2, 4.0, 4.0))), 1.0)
    assert values(merger.ready(1.0)) == [[2.0, 2.0]]


def test_other_metrics_are_named(merger):
    merger.put([row(1, 1.0, 1.0)], 0.0)
    merger.receive(PeerRows(1, peer_rows(row(1, 3.0, 4.0, 5.0, names=("a", "b", "c")))), 0.0)
    merger.receive(PeerRows(2, peer_rows(row(1, 3.0, names=("a",)))), 0.0)
    with pytest.warns(LoggingWarning) as warned:
        assert values(merger.ready(0.0)) == [[1.0, 1.0]]
    texts = sorted(str(w.message) for w in warned)
    assert "sent the metrics c, which process 0 does not log" in texts[0]
    assert "sent no b, which process 0 logs" in texts[1]


def test_names_travel_once_and_numbers_to_the_last_bit():
    encoder, decoder = Encoder(), Decoder()
    first = sent(encoder, row(1, 0.1, np.nan))
    second = sent(encoder, row(2, np.inf, 1e-320))
    assert first["names"] == [NAMES] and second["names"] == []
    (one,), (two,) = decoder.decode(first), decoder.decode(second)
    assert one.names == two.names == NAMES
    np.testing.assert_array_equal(one.totals.plain, [0.1, np.nan])
    np.testing.assert_array_equal(two.totals.plain, [np.inf, 1e-320])


def test_names_in_a_message_that_did_not_leave_travel_again():
    encoder, decoder = Encoder(), Decoder()
    encoder.encode([row(1, 1.0, names=("a",))])
    for names in (("b",), ("a",), ("b",)):
        (read,) = decoder.decode(sent(encoder, row(1, 1.0, names=names)))
        assert read.names == names


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Process and number of rows of three processes in any mixture, each in its own order; the
    others may send a row several times."""
    count = draw(st.integers(1, 12))
    own = [(0, number) for number in range(count)]
    times = st.integers(1, 3)
    left = [own] + [
        [(process, number) for number in range(count) for _ in range(draw(times))]
        for process in (1, 2)
    ]
    mixed = []
    while any(left):
        stream = draw(st.sampled_from([each for each in left if each]))
        mixed.append(stream.pop(0))
    return mixed


@given(streams())
def test_in_any_mixture_each_row_is_merged_once_and_is_the_mean(mixed):
    failures = Failures()
    merger = PeerMerger(["h0", "h1", "h2"], failures)
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for process, number in mixed:
            # Each process has a value of its own, other than that of the rows around.
            one = row(number, 10.0 * number + 3 * process, float(process))
            if process == 0:
                merger.put([one], 0.0)
            else:
                merger.receive(PeerRows(process, peer_rows(one)), 0.0)
            out += values(merger.ready(0.0))
    count = 1 + max(number for _, number in mixed)
    assert out == [[10.0 * number + 3.0, 1.0] for number in range(count)]
    assert not merger.is_waiting
    named = {failure.where for failure in failures.all()}
    again = {one for one in mixed if mixed.count(one) > 1 and one[1] < count - 1}
    assert named == {f"process {process} (h{process})" for process, _ in again}


class Box:
    """The receiving end of a mailbox in memory. Waits pass on its own clock, 1000 times as fast."""

    def __init__(self, messages):
        self.messages = {process: deque(some) for process, some in messages.items()}
        self.clock = self.read_at = 0.0
        self.nothing = threading.Event()

    def senders(self, *, timeout):
        return [1, 2, 3, 4, 5]

    def receive(self, process, *, timeout):
        if self.messages.get(process):
            self.read_at = self.clock
            return self.messages[process].popleft()
        self.clock += timeout
        self.nothing.wait(timeout / 1000)
        return None


def messages(count):
    """As many messages, each with a row, and the end."""
    encoder = Encoder()
    for number in range(count):
        yield sent(encoder, row(number, 0.0, names=("x",)))
    yield {"end": "finished"}


def numbers(queue, process, until):
    """Rows that came from a process, up to its end, while `until` says nothing else."""
    found = []
    limit = time.monotonic() + LIMIT
    while time.monotonic() < limit and not until(found):
        for arrival, _ in queue.take(0.05):
            if arrival.process == process:
                found += [each.number for each in arrival.rows]
                found += [arrival.state] if arrival.state else []
    return found


def test_processes_that_are_silent_cost_the_others_nothing():
    box = Box({5: messages(200)})
    queue = RowQueue(Failures(), pause=0.0)
    receiver = PeerReceiver(cast(Any, box), 6, queue, lambda process: False, Failures())
    receiver.start()
    found = numbers(queue, 5, lambda found: "finished" in found)
    receiver.stop()
    assert found == [*range(200), "finished"]
    # Eight messages a round, of a second in all.
    assert box.read_at <= 1 + 201 / 8


def test_a_process_that_is_ahead_is_not_read_until_there_is_room():
    room = threading.Event()
    asked = threading.Semaphore(0)

    def is_ahead(process):
        asked.release()
        return process == 1 and not room.is_set()

    box = Box({1: messages(10), 2: messages(10)})
    queue = RowQueue(Failures(), pause=0.0)
    receiver = PeerReceiver(cast(Any, box), 3, queue, is_ahead, Failures())
    receiver.start()
    assert numbers(queue, 2, lambda found: "finished" in found) == [*range(10), "finished"]
    for _ in range(3):
        assert asked.acquire(timeout=LIMIT)
    assert len(box.messages[1]) == 11
    room.set()
    assert numbers(queue, 1, lambda found: "finished" in found) == [*range(10), "finished"]
    receiver.stop()


def emitted(step, value, names=NAMES):
    own = row(step, value, value, names=names)
    return own._replace(schema=dataclasses.replace(own.schema, unit=1))


def test_rows_of_emit_are_matched_among_themselves_whatever_overtakes_them(merger, failures):
    other = ("c", "d")
    here = [row(1, 0.0), emitted(1, 0.0), emitted(1, 0.0, other), row(2, 0.0), emitted(2, 0.0)]
    merger.put(here, 0.0)
    sent = [emitted(1, 6.0, other), emitted(1, 3.0), emitted(2, 9.0), row(1, 12.0), row(2, 15.0)]
    for process in (1, 2):
        merger.receive(PeerRows(process, peer_rows(*sent)), 0.0)
    assert [both[0] for both in values(merger.ready(0.0))] == [8.0, 2.0, 4.0, 10.0, 6.0]
    assert failures.all() == ()


def test_a_program_that_counts_from_0_again_is_matched_again(merger, failures):
    steps = [0, 1, 2, 0, 1, 2]
    merger.put([emitted(step, 0.0) for step in steps], 0.0)
    for process in (1, 2):
        mine = [emitted(step, 3.0 * i) for i, step in enumerate(steps)]
        merger.receive(PeerRows(process, peer_rows(*mine)), 0.0)
    assert [both[0] for both in values(merger.ready(0.0))] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert failures.all() == ()


def test_a_row_that_another_process_never_emits_holds_up_no_run(merger, failures):
    """It goes on, so it is not excluded: only this row is without its values."""
    merger.put([emitted(1, 5.0), row(70)], 0.0)
    for process in (1, 2):
        merger.receive(PeerRows(process, peer_rows(*map(row, range(70, 140)))), 0.0)
    assert merger.ready(5.0) == []
    with pytest.warns(LoggingWarning, match="sent 64 rows but not row 1 of `emit`"):
        assert [item.number for item in merger.ready(11.0)] == [1, 70]
    assert len(failures.all()) == 2  # one a process


def test_a_row_that_another_process_skips_costs_none_of_its_later_ones(merger):
    merger.put([emitted(step, 0.0) for step in (1, 2, 3)], 0.0)
    merger.receive(PeerRows(1, peer_rows(emitted(1, 3.0), emitted(3, 3.0))), 0.0)
    merger.receive(PeerRows(2, peer_rows(*(emitted(step, 3.0) for step in (0, 1, 2, 3)))), 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [both[0] for both in values(merger.ready(0.0))] == [2.0, 1.5, 2.0]
