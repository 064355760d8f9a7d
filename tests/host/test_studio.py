"""Clips are drawn beside the rows: what they may cost, and what not."""

import threading
import warnings
import weakref
from queue import SimpleQueue

import numpy as np
import pytest

from lerax_dist._failures import Failures, LoggingWarning
from lerax_dist.host._clip_file import load_clip
from lerax_dist.host._film import Film, FilmPart
from lerax_dist.host._studio import Studio

LIMIT = 20.0


def frames_of(body):
    return np.full((3, 4, 5, 3), body[0], np.uint8)


class Desk:
    """A studio, and the writer's thread played by the test."""

    def __init__(self, tmp_path, develop=frames_of):
        self.failures, self.queue, self.run_dir = Failures(), SimpleQueue(), tmp_path
        self.studio = Studio(self.queue.put, tmp_path, self.failures)
        self.deliver = self.studio.clips(Film("eval/video", 50.0, develop))

    def send(self, iteration, color=7, part=0, parts=1):
        self.deliver(part, parts, np.array([iteration, color], np.int32))

    def work(self):
        """Takes what is queued, as the writer does; what is no part of a clip comes back."""
        rest = []
        while not self.queue.empty():
            item = self.queue.get()
            if isinstance(item, FilmPart):
                self.studio.part(item)
            else:
                rest.append(item)
        return rest

    @property
    def messages(self):
        return [failure.message for failure in self.failures.all()]


def test_a_clip_becomes_a_file_and_a_record(tmp_path):
    desk = Desk(tmp_path)
    desk.send(4, 9)
    assert desk.work() == []
    desk.studio.row(4, 400)
    assert desk.studio.wait(LIMIT) == 0
    (event,) = desk.work()
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
    desk.studio.close(LIMIT)
    assert desk.messages == []


def test_a_step_that_comes_again_replaces_no_file(tmp_path):
    desk = Desk(tmp_path)
    files = []
    for color in (1, 2):
        desk.send(4, color)
        desk.work()
        desk.studio.row(4, 400)
        desk.studio.wait(LIMIT)
        files += [event.body["file"] for event in desk.work()]
    assert files == [f"videos/eval/video/000000000400{again}.png" for again in ("", "_2")]
    assert [load_clip(tmp_path / file, 3, 50.0)[0, 0, 0, 0] for file in files] == [1, 2]


def test_clips_that_come_too_fast_are_thinned_with_one_warning(tmp_path):
    go_on, began = threading.Event(), threading.Event()

    def develop(body):
        began.set()
        assert go_on.wait(LIMIT)
        return frames_of(body)

    desk = Desk(tmp_path, develop)
    with pytest.warns(LoggingWarning, match="faster than they can be drawn") as warned:
        for iteration in range(1, 51):
            # In parts, which all are left out if one is.
            desk.send(iteration, part=1, parts=2)
            desk.send(iteration, part=0, parts=2)
            desk.work()
            desk.studio.row(iteration, 10 * iteration)
    assert len(warned) == 1
    assert began.wait(LIMIT)
    assert desk.studio.wait(0.0) == 4
    go_on.set()
    assert desk.studio.wait(LIMIT) == 0
    assert [event.body["step"] for event in desk.work()] == [10, 20, 30, 40]
    # With room again, they are taken again.
    desk.send(60)
    desk.work()
    desk.studio.row(60, 600)
    assert desk.studio.wait(LIMIT) == 0
    assert [event.body["step"] for event in desk.work()] == [600]
    assert len(desk.messages) == 1


def test_a_drawing_that_raises_is_told_of_once_and_the_next_clip_is_drawn(tmp_path):
    def develop(body):
        if body[0] < 3:
            raise KeyError("no such colour")
        return frames_of(body)

    desk = Desk(tmp_path, develop)
    with pytest.warns(LoggingWarning, match="the clip at step 10 could not be drawn") as warned:
        for iteration in (1, 2, 3):
            desk.send(iteration, iteration)
            desk.work()
            desk.studio.row(iteration, 10 * iteration)
        assert desk.studio.wait(LIMIT) == 0
    assert len(warned) == 1
    assert [event.body["step"] for event in desk.work()] == [30]


def test_closing_does_not_wait_for_ever_and_says_what_is_lost(tmp_path):
    go_on = threading.Event()
    desk = Desk(tmp_path, lambda body: go_on.wait(LIMIT))
    desk.send(1)
    desk.send(2)
    desk.work()
    desk.studio.row(1, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoggingWarning)
        desk.studio.close(0.0)
        desk.send(3)
        go_on.set()
    assert desk.work() == []
    lost, stray, *_ = desk.messages
    assert "1 clips were not drawn within 0 s" in lost
    assert "1 clips had no row" in stray


def test_a_callback_that_fails_does_not_raise(tmp_path):
    desk = Desk(tmp_path)
    with pytest.warns(LoggingWarning, match="a clip could not be taken"):
        desk.deliver(0, 1, object())


def test_a_closed_studio_keeps_neither_thread_nor_frames(tmp_path):
    kept = []

    def develop(body):
        frames = frames_of(body)
        kept.append(weakref.ref(frames))
        return frames

    desk = Desk(tmp_path, develop)
    desk.send(0)
    desk.work()
    desk.studio.row(0, 5)
    assert desk.studio.wait(LIMIT) == 0
    desk.studio.close(LIMIT)
    thread = desk.studio._thread
    assert thread is not None
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert [frames() for frames in kept] == [None]


def test_who_draws_and_quits_the_program_costs_its_clip_only(tmp_path):
    def develop(body):
        if body[0] == 0:
            raise SystemExit("no display")
        return frames_of(body)

    desk = Desk(tmp_path, develop)
    with pytest.warns(LoggingWarning, match="could not be drawn: no display"):
        for iteration in (0, 1):
            desk.send(iteration, color=iteration)
            desk.work()
            desk.studio.row(iteration, 5 * iteration)
            assert desk.studio.wait(LIMIT) == 0
    assert [event.body["step"] for event in desk.work()] == [5]
