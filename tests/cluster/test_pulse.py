"""Who is silent, decided from signs and times alone."""

import pytest

from lerax_dist.cluster._pulse import (
    News,
    choose_tempo,
    decode_news,
    encode_news,
    hear,
    is_of_another,
    silent,
)


def test_who_repeats_itself_gives_no_sign():
    beats = hear({}, {1: "0", 2: "0"}, now=10.0)
    beats = hear(beats, {1: "1", 2: "0"}, now=12.0)
    assert silent(beats, (), now=13.0, patience=3.0) == {2: 3.0}
    assert silent(beats, (), now=15.5, patience=3.0) == {1: 3.5, 2: 5.5}
    assert silent(beats, {2}, now=15.5, patience=3.0) == {1: 3.5}
    beats = hear(beats, {2: "1"}, now=16.0)
    assert silent(beats, (), now=16.0, patience=3.0) == {1: 4.0}


def test_who_was_never_heard_is_not_silent():
    assert silent(hear({}, {}, now=0.0), (), now=1e6, patience=3.0) == {}


@pytest.mark.parametrize(
    ("heartbeat", "count", "period", "patience"),
    [(60, 2, 1.0, 18.0), (100, 250, 1.0, 30.0), (10, 4, 1.0, 3.0), (4, 4, 1.0, 3.0)],
)
def test_who_is_silent_is_named_before_jax_ends_everybody(
    heartbeat: float, count: int, period: float, patience: float
):
    tempo = choose_tempo(heartbeat, count)
    assert (tempo.period, tempo.patience) == pytest.approx((period, patience))
    # After half of its limit at the earliest, and aborts take 6 s.
    assert tempo.patience + 2 * tempo.period < heartbeat / 2 + 6
    assert tempo.given_up < heartbeat / 2 + 6


def test_many_processes_look_less_often():
    assert choose_tempo(60, 10_000).period == 20.0
    assert choose_tempo(60, 10_000).patience >= 60.0


def test_news_survive_text():
    news = News(7, {0: "n0", 3: "n3"}, {3: 4.5}, {1: "ValueError: π"})
    assert decode_news(encode_news(news)) == news


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("ValueError: UNKNOWN: Gloo all-reduce failed: Connection closed by peer [::1]:9", True),
        ("JaxRuntimeError: INTERNAL: NCCL operation ncclAllReduce failed: remote process", True),
        ("RuntimeError: UNAVAILABLE: Socket closed", True),
        ("ValueError: a wrong turn", False),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data.npz'", False),
    ],
)
def test_errors_that_come_of_another_process(why: str, expected: bool):
    assert is_of_another(why) == expected
