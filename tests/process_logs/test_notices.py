from lerax_dist.process_logs._notices import decode_notice, encode_notice, summarise
from lerax_dist.process_logs._process_log import Counts


def test_what_is_posted_comes_back():
    counts = Counts(3, 1, "ERROR a: b")
    assert decode_notice(encode_notice("n1", counts)) == ("n1", counts)


def test_only_what_is_new_is_told_and_errors_first():
    before = {1: ("n1", Counts(2, 0, "w"))}
    now = {1: ("n1", Counts(3, 0, "WARNING a: w")), 7: ("n3", Counts(0, 2, "ERROR b: e"))}
    assert summarise(before, now) == (
        "1 warning on process 1 (n1); 2 errors on process 7 (n3). Process 7: ERROR b: e"
    )
    assert summarise(now, now) is None
    assert summarise({}, {}) is None


def test_many_processes_are_counted():
    now = {index: ("n", Counts(1, 0, "x")) for index in range(1, 100)}
    text = summarise({}, now)
    assert text is not None
    assert text.endswith("; and on 95 more processes. Process 1: x")
