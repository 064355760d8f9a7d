"""Clips are matched with the steps of their rows. A pure unit test of `ClipMatcher`."""

from queue import SimpleQueue

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.host._clips import ClipMatcher, ClipPart, ClipRenderer, ClipSpec

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
    assert matcher.restart() == 1
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


def frames_of(body):
    return np.full((3, 4, 5, 3), body[0], np.uint8)


class Fixture:
    """A renderer, and a test that plays the writer thread."""

    def __init__(self, tmp_path, render=frames_of):
        self.failures, self.queue, self.run_dir = Failures(), SimpleQueue(), tmp_path
        self.clips = ClipRenderer(self.queue.put, tmp_path, self.failures)
        self.receive = self.clips.clip_callback(ClipSpec("eval/video", 50.0, render))

    def send(self, iteration, color=7, part=0, parts=1):
        self.receive(part, parts, np.array([iteration, color], np.int32))

    def work(self):
        """Takes what is queued, as the writer does; returns what is not a part of a clip."""
        rest = []
        while not self.queue.empty():
            item = self.queue.get()
            if isinstance(item, ClipPart):
                self.clips.part(item)
            else:
                rest.append(item)
        return rest

    @property
    def messages(self):
        return [failure.message for failure in self.failures.all()]
