"""Clips are matched with the steps of their rows. A pure unit test of `ClipMatcher`."""

import numpy as np

from lerax_dist.host._clips import ClipMatcher, ClipPart, ClipSpec

TIMEOUT = 20.0
SPEC = ClipSpec("eval/video", 50.0, lambda words: words)


def make_part(iteration, number=0, parts=1, body=(1, 2)):
    return ClipPart(SPEC, number, parts, np.array([iteration, *body], np.int32), 0.5)


def contents(clip):
    return (clip.iteration, clip.step, clip.body.tolist(), clip.time)


def test_the_row_may_come_first_or_last():
    matcher = ClipMatcher()
    assert matcher.row(4, 400) is None
    assert contents(matcher.part(make_part(4))) == (4, 400, [1, 2], 0.5)
    assert matcher.part(make_part(8)) is None
    assert matcher.row(7, 700) is None
    assert contents(matcher.row(8, 800)) == (8, 800, [1, 2], 0.5)
    assert matcher.row(12, 1200) is None


def test_parts_are_joined_in_their_order():
    matcher = ClipMatcher()
    matcher.row(4, 400)
    assert matcher.part(make_part(4, 2, 3, (5,))) is None
    assert matcher.part(make_part(4, 0, 3, (1, 2))) is None
    assert contents(matcher.part(make_part(4, 1, 3, (3, 4)))) == (4, 400, [1, 2, 3, 4, 5], 0.5)


def test_steps_of_an_earlier_training_are_forgotten():
    matcher = ClipMatcher()
    matcher.row(4, 400)
    matcher.row(8, 800)
    # With a start in between, and without one, as a user's own loop may have it.
    assert matcher.part(make_part(12)) is None
    assert [int(part.payload[0]) for (part,) in matcher.restart()] == [12]
    assert matcher.part(make_part(4)) is None
    assert contents(matcher.row(4, 44))[1] == 44
    matcher.row(8, 88)
    matcher.row(1, 11)
    assert matcher.part(make_part(8)) is None
    assert contents(matcher.row(8, 888))[1] == 888


def test_only_the_latest_steps_are_kept():
    matcher = ClipMatcher()
    for iteration in range(1000):
        matcher.row(iteration, iteration)
    assert matcher.part(make_part(100)) is None
    assert contents(matcher.part(make_part(900)))[1] == 900
