"""Clips: matched with the steps of their rows, rendered and saved, within limits."""

import threading
import warnings
import weakref
from queue import SimpleQueue

import numpy as np
import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.host._clip_file import load_clip
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
        self.receive = self.clips.callback(ClipSpec("eval/video", 50.0, render))

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


def test_a_clip_becomes_a_file_and_a_record(tmp_path):
    fixture = Fixture(tmp_path)
    fixture.send(4, 9)
    assert fixture.work() == []
    fixture.clips.row(4, 400)
    assert fixture.clips.wait(TIMEOUT) == 0
    (event,) = fixture.work()
    assert (event.kind, event.body) == (
        "video",
        {
            "tag": "eval/video",
            "step": 400,
            "iteration": 4,
            "fps": 50.0,
            "shape": [3, 4, 5, 3],
            "file": "videos/eval/video/000000000400.png",
        },
    )
    back = load_clip(tmp_path / event.body["file"], 3, 50.0)
    np.testing.assert_array_equal(back, frames_of([9]))
    fixture.clips.close(TIMEOUT)
    assert fixture.messages == []


def test_frames_of_a_plain_loop_are_saved_as_they_are(tmp_path):
    fixture = Fixture(tmp_path)
    fixture.clips.frames("eval/own", frames_of([5]), 70, 25.0)
    assert fixture.clips.wait(TIMEOUT) == 0
    (event,) = fixture.work()
    assert (event.body["tag"], event.body["step"], event.body["fps"]) == ("eval/own", 70, 25.0)
    back = load_clip(tmp_path / event.body["file"], 3, 25.0)
    np.testing.assert_array_equal(back, frames_of([5]))


def test_a_repeated_step_overwrites_no_file(tmp_path):
    fixture = Fixture(tmp_path)
    files = []
    for color in (1, 2):
        fixture.send(4, color)
        fixture.work()
        fixture.clips.row(4, 400)
        fixture.clips.wait(TIMEOUT)
        files += [event.body["file"] for event in fixture.work()]
    assert files == [f"videos/eval/video/000000000400{again}.png" for again in ("", "_2")]
    assert [load_clip(tmp_path / file, 3, 50.0)[0, 0, 0, 0] for file in files] == [1, 2]


def test_clips_that_arrive_too_fast_are_dropped_with_one_warning(tmp_path):
    go_on, began = threading.Event(), threading.Event()

    def render(body):
        began.set()
        assert go_on.wait(TIMEOUT)
        return frames_of(body)

    fixture = Fixture(tmp_path, render)
    with pytest.warns(LoggingWarning, match="faster than they can be rendered") as warned:
        for iteration in range(1, 51):
            # In two parts: if one is dropped, so is the other.
            fixture.send(iteration, part=1, parts=2)
            fixture.send(iteration, part=0, parts=2)
            fixture.work()
            fixture.clips.row(iteration, 10 * iteration)
    assert len(warned) == 1
    assert began.wait(TIMEOUT)
    assert fixture.clips.wait(0.0) == 4
    go_on.set()
    assert fixture.clips.wait(TIMEOUT) == 0
    assert [event.body["step"] for event in fixture.work()] == [10, 20, 30, 40]
    # Once there is room again, clips are accepted again.
    fixture.send(60)
    fixture.work()
    fixture.clips.row(60, 600)
    assert fixture.clips.wait(TIMEOUT) == 0
    assert [event.body["step"] for event in fixture.work()] == [600]
    assert len(fixture.messages) == 1


def test_a_render_function_that_raises_is_reported_once_and_the_next_clip_is_saved(tmp_path):
    def render(body):
        if body[0] < 3:
            raise KeyError("no such color")
        return frames_of(body)

    fixture = Fixture(tmp_path, render)
    with pytest.warns(LoggingWarning, match="failed to render the clip at step 10") as warned:
        for iteration in (1, 2, 3):
            fixture.send(iteration, iteration)
            fixture.work()
            fixture.clips.row(iteration, 10 * iteration)
        assert fixture.clips.wait(TIMEOUT) == 0
    assert len(warned) == 1
    assert [event.body["step"] for event in fixture.work()] == [30]


def test_a_render_function_that_exits_the_program_costs_its_clip_only(tmp_path):
    def render(body):
        if body[0] == 0:
            raise SystemExit("no display")
        return frames_of(body)

    fixture = Fixture(tmp_path, render)
    with pytest.warns(LoggingWarning, match="failed to render the clip at step 0: no display"):
        for iteration in (0, 1):
            fixture.send(iteration, color=iteration)
            fixture.work()
            fixture.clips.row(iteration, 5 * iteration)
            assert fixture.clips.wait(TIMEOUT) == 0
    assert [event.body["step"] for event in fixture.work()] == [5]


def test_close_has_a_time_limit_and_reports_what_is_lost(tmp_path):
    go_on = threading.Event()
    fixture = Fixture(tmp_path, lambda body: go_on.wait(TIMEOUT))
    fixture.send(1)
    fixture.send(2)
    fixture.work()
    fixture.clips.row(1, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoggingWarning)
        fixture.clips.close(0.0)
        fixture.send(3)
        go_on.set()
    assert fixture.work() == []
    lost, stray, *_ = fixture.messages
    assert "lost 1 clip(s) that were not rendered within 0 s" in lost
    assert "dropped 1 clip(s): no row was logged for their iteration" in stray


def test_a_callback_that_fails_does_not_raise(tmp_path):
    fixture = Fixture(tmp_path)
    with pytest.warns(LoggingWarning, match="failed to receive a clip"):
        fixture.receive(0, 1, object())


def test_disabling_video_is_reported_with_its_reason(tmp_path):
    fixture = Fixture(tmp_path)
    with pytest.warns(LoggingWarning, match="video recording disabled: no way to draw it"):
        fixture.clips.disable(ValueError("no way to draw it"))


def test_a_closed_renderer_keeps_neither_thread_nor_frames(tmp_path):
    kept = []

    def render(body):
        frames = frames_of(body)
        kept.append(weakref.ref(frames))
        return frames

    fixture = Fixture(tmp_path, render)
    fixture.send(0)
    fixture.work()
    fixture.clips.row(0, 5)
    assert fixture.clips.wait(TIMEOUT) == 0
    fixture.clips.close(TIMEOUT)
    thread = fixture.clips._thread
    assert thread is not None
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert [frames() for frames in kept] == [None]
