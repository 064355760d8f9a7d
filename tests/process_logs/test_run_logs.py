"""Warnings and errors of other processes: stored as text, summarized in one line."""

from lerax_dist.process_logs._process_log import Counts
from lerax_dist.process_logs._run_logs import decode_counts, encode_counts, summarize


def test_stored_counts_are_decoded_again():
    counts = Counts(3, 1, "ERROR a: b")
    assert decode_counts(encode_counts("n1", counts)) == ("n1", counts)


def test_only_new_ones_are_reported_and_an_error_is_quoted_first():
    before = {1: ("n1", Counts(2, 0, "w"))}
    now = {1: ("n1", Counts(3, 0, "WARNING a: w")), 7: ("n3", Counts(0, 2, "ERROR b: e"))}
    assert summarize(before, now) == (
        "1 warning on process 1 (n1); 2 errors on process 7 (n3). Process 7: ERROR b: e"
    )
    assert summarize(now, now) is None
    assert summarize({}, {}) is None


def test_four_processes_are_named_and_the_others_counted():
    now = {index: ("n", Counts(1, 0, "x")) for index in range(1, 100)}
    text = summarize({}, now)
    assert text is not None
    assert text.endswith("; and on 95 more processes. Process 1: x")
