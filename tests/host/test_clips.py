"""Clips are kept beside the rows: without loss, at their steps, and never in their way."""

import threading
import tracemalloc
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import lerax_dist as ld
from lerax_dist.host import _clips
from tests.loop import KEY, reset, run_threads, step_states, training
from tests.memory import Hangs, Memory
from tests.readers import journal_records

LIMIT = 20.0
RANDOM = np.random.default_rng(0)


def noise(count, channels):
    return RANDOM.integers(0, 256, (count, 8, 9, channels), dtype=np.uint8)


def clip_events(logger, kind="video"):
    return [
        record.body
        for record in journal_records(logger.run_dir)
        if getattr(record, "kind", "") == kind
    ]


def dropped(logger):
    """Tag, step and iteration of the clips that the journal has as dropped."""
    bodies = clip_events(logger, "dropped")
    return [(body["tag"], body["step"], body["iteration"]) for body in bodies if body["reason"]]


def videos(logger):
    folder = logger.run_dir / "videos"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def messages(logger):
    return [failure.message for failure in logger.failures]


STILL = np.repeat(noise(1, 3), 7, axis=0)
BLINKING = np.zeros((5, 8, 9, 3), np.uint8)
BLINKING[2, 3, 3] = 7
LONG = np.zeros((4000, 2, 2, 3), np.uint8)
LONG[0] = 1
CLIPS = [
    *(noise(count, channels) for count in (1, 2, 7) for channels in (1, 3, 4)),
    STILL,
    np.concatenate([STILL, noise(1, 3), STILL, STILL]),
    BLINKING,
    LONG,
]


@pytest.mark.parametrize("fps", [50.0, 59.94, 0.01, 5000.0])
def test_every_frame_comes_to_a_backend_from_its_file(tmp_path, fps):
    backend = Memory()
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        for step, frames in enumerate(CLIPS):
            logger.log_video("v", frames, step, fps)
            logger.flush(LIMIT)
    assert logger.failures == ()
    assert videos(logger) == [f"v/{step:012}.png" for step in range(len(CLIPS))]
    for (tag, got, step, speed), frames in zip(backend.clips, CLIPS, strict=True):
        assert (tag, speed, got.dtype) == ("v", fps, np.uint8)
        np.testing.assert_array_equal(got, frames, err_msg=str(step))


def test_a_browser_finds_an_animation_of_the_right_speed(tmp_path):
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        logger.log_video("v", noise(6, 3), 0, 50.0)
    with Image.open(logger.run_dir / "videos/v/000000000000.png") as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("PNG", 6)
        assert image.info["duration"] == 20.0


@pytest.mark.parametrize("damage", ["another clip", "cut"])
def test_a_file_that_holds_something_else_reaches_no_backend_and_is_named(tmp_path, damage):
    # Gets its clips once the test has done something to their files.
    backend = Hangs("log_scalars")
    logger = ld.Logger(backend, "r", log_dir=tmp_path)
    logger.log({"x": 1.0}, 0)
    logger.log_video("v", noise(5, 3), 0)
    logger.log_video("v", noise(6, 3), 1)
    with pytest.raises(TimeoutError, match="Hangs"):
        logger.flush(1.0)
    first, second = (logger.run_dir / body["file"] for body in clip_events(logger))
    first.write_bytes(second.read_bytes() if damage == "another clip" else first.read_bytes()[:100])
    with pytest.warns(ld.LoggingWarning, match="^Hangs: "):
        backend.release.set()
        logger.close(timeout=LIMIT)
    assert [step for _, _, step, _ in backend.clips] == [1]
    assert any("clip" in text for text in messages(logger))


class Played:
    """A logger that records a clip in every iteration, whose frames the test draws.

    Args:
        draw: color of a clip to its frame.
    """

    def __init__(self, tmp_path, draw, *, size=1, **options):
        self.backend = Memory()
        self.logger = ld.LoggingCallback(
            self.backend,
            "r",
            log_dir=tmp_path,
            video_interval=1,
            video_num_steps=3,
            video_width=5,
            video_height=4,
            rollout=lambda policy, key: jnp.broadcast_to(policy, (3, size)),
            render=lambda color, width, height: draw(int(color[0])),
            **options,
        )

        @jax.jit
        def step(state, count, color):
            states = step_states(100 * count[None])
            context = ld.IterationContext(state, states, None, color, count, None, {})
            return self.logger.on_iteration(context, key=KEY)

        self._step, self.state = step, reset(self.logger)

    def iterate(self, count, color=7):
        """One iteration; what it sends has reached the host when this returns."""
        self.state = self._step(self.state, jnp.int32(count), jnp.int32(color))
        jax.effects_barrier()

    def start(self):
        context = training(self.state, 0)
        self.logger.on_training_start(context, key=KEY)
        jax.effects_barrier()


def frame(color):
    return np.full((4, 5, 3), color, np.uint8)


def test_a_clip_of_the_devices_becomes_a_file_and_a_record(tmp_path):
    played = Played(tmp_path, frame)
    with played.logger as logger:
        played.iterate(4, 9)
    assert clip_events(logger) == [
        {
            "tag": "eval/video",
            "step": 400,
            "iteration": 4,
            "fps": 50.0,
            "shape": [3, 4, 5, 3],
            "file": "videos/eval/video/000000000400.png",
        }
    ]
    ((tag, frames, step, fps),) = played.backend.clips
    assert (tag, step, fps) == ("eval/video", 400, 50.0)
    np.testing.assert_array_equal(frames, np.full((3, 4, 5, 3), 9))
    assert logger.failures == ()


def test_a_clip_that_comes_before_its_row_waits_for_it(tmp_path):
    played = Played(tmp_path, frame, rows_per_transfer=10)
    with played.logger as logger:
        for count in (1, 2, 3):
            played.iterate(count, count)
        logger.flush(LIMIT)
        assert played.backend.clips == played.backend.rows == []
        logger.flush_state(played.state)
        logger.flush(LIMIT)
        got = [(step, frames[0, 0, 0, 0]) for _, frames, step, _ in played.backend.clips]
        assert got == [(100, 1), (200, 2), (300, 3)]
    assert logger.failures == ()


@pytest.mark.parametrize("restarts", [True, False], ids=["another training", "close"])
def test_a_clip_without_a_row_gets_no_step_and_is_counted(tmp_path, restarts):
    played = Played(tmp_path, frame, rows_per_transfer=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ld.LoggingWarning)
        with played.logger as logger:
            played.iterate(1)
            if restarts:
                played.start()
                played.iterate(2)
                played.state = logger.flush_state(played.state)
    assert any("no row was logged for their iteration" in text for text in messages(logger))
    assert dropped(logger) == [("eval/video", None, 1)]
    assert [step for _, _, step, _ in played.backend.clips] == [200] * restarts


def test_a_step_that_comes_again_replaces_no_file(tmp_path):
    """The same iteration again in a loop that says nothing of it; another training goes on."""
    played = Played(tmp_path, frame)
    with played.logger as logger:
        for color, starts in ((1, True), (2, False), (3, False), (4, True)):
            if starts:
                played.start()
            played.iterate(4, color)
            logger.flush(LIMIT)
    names = ["400", "400_2", "400_3", "800"]
    assert videos(logger) == [f"eval/video/000000000{name}.png" for name in names]
    assert [frames[0, 0, 0, 0] for _, frames, _, _ in played.backend.clips] == [1, 2, 3, 4]


def test_every_clip_of_a_plain_loop_is_kept_and_one_that_finds_no_room_waits(tmp_path, monkeypatch):
    clips = [noise(9, 3) for _ in range(10)]
    monkeypatch.setattr(_clips, "_BOUND", 2 * clips[0].nbytes)
    backend = Memory()
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        for task, frames in enumerate(clips):
            logger.log_video(f"eval/task_{task}", frames, 7)
    assert [tag for tag, *_ in backend.clips] == [f"eval/task_{task}" for task in range(10)]
    assert (logger.failures, dropped(logger)) == ((), [])
    # One that waits while nothing moves is dropped, in the end, and the journal has that.
    go_on = threading.Event()
    monkeypatch.setattr(_clips, "_ROOM_TIMEOUT", 0.2)
    monkeypatch.setattr(_clips, "save_clip", lambda *_: go_on.wait(LIMIT))
    with ld.Logger(backend, "stuck", log_dir=tmp_path) as logger:
        logger.log_video("first", clips[0], 7)
        logger.log_video("second", clips[0], 7)
        with pytest.warns(ld.LoggingWarning, match="'third': no clip was rendered for 0.2 s"):
            logger.log_video("third", clips[0], 7)
        go_on.set()
    assert dropped(logger) == [("third", 7, None)]


@pytest.mark.parametrize(
    ("size", "bound"), [(1, 55), (40_000, 2_000_000)], ids=["whole", "in parts"]
)
def test_clips_beyond_the_memory_bound_are_dropped_with_one_warning(
    tmp_path, monkeypatch, size, bound
):
    monkeypatch.setattr(_clips, "_BOUND", bound)
    go_on = threading.Event()

    def draw(color):
        assert go_on.wait(LIMIT)
        return frame(color)

    played = Played(tmp_path, draw, size=size)
    with played.logger as logger:
        with pytest.warns(ld.LoggingWarning, match="faster than they can be rendered") as warned:
            for count in range(1, 21):
                played.iterate(count)
        assert len(warned) == 1
        with pytest.raises(TimeoutError, match="4 clips"):
            logger.flush(0.5)
        go_on.set()
        logger.flush(LIMIT)
        assert [step for _, _, step, _ in played.backend.clips] == [100, 200, 300, 400]
        # With room again, they are taken again.
        played.iterate(60)
        logger.flush(LIMIT)
        assert [step for _, _, step, _ in played.backend.clips][4:] == [6000]
    assert len(logger.failures) == 1
    assert dropped(logger) == [("eval/video", None, count) for count in range(5, 21)]
    assert [step for step, _ in played.backend.rows] == [
        *range(100, 2001, 100), 6000
    ]  # fmt: skip


@pytest.mark.parametrize("error", [KeyError("no such color"), SystemExit("no display")])
def test_a_drawing_that_raises_costs_its_clip_and_is_reported_once(tmp_path, error):
    def draw(color):
        if color < 3:
            raise error
        return frame(color)

    played = Played(tmp_path, draw)
    with pytest.warns(ld.LoggingWarning, match=f"step 100: .*{error.args[0]}") as warned:
        with played.logger as logger:
            for count in (1, 2, 3):
                played.iterate(count, count)
                logger.flush(LIMIT)
    assert len(warned) == 1
    assert [step for _, _, step, _ in played.backend.clips] == [300]
    assert [step for step, _ in played.backend.rows] == [100, 200, 300]


def test_closing_does_not_wait_for_ever_and_says_what_is_lost(tmp_path):
    go_on = threading.Event()

    def draw(color):
        go_on.wait(LIMIT)
        return frame(color)

    played = Played(tmp_path, draw)
    logger = played.logger
    played.iterate(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ld.LoggingWarning)
        logger.close(timeout=1.0)
    go_on.set()
    assert played.backend.clips == []
    assert [step for step, _ in played.backend.rows] == [100]
    assert journal_records(logger.run_dir)[-1].kind == "close"
    assert dropped(logger) == [("eval/video", 100, 1)]
    (lost,) = messages(logger)
    assert "1 clip" in lost and "lost" in lost


def test_a_run_keeps_no_frames_of_a_clip_that_is_written_and_closed_no_thread(tmp_path):
    before = run_threads()
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        tracemalloc.start()
        logger.log_video("v", np.zeros((8, 1000, 1000, 3), np.uint8), 0)
        logger.flush(LIMIT)
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak > 24e6 > 4e6 > now
    for thread in run_threads() - before:
        thread.join(LIMIT)
        assert not thread.is_alive(), thread.name


def test_a_clip_that_cannot_be_kept_costs_no_row_and_no_later_clip(tmp_path):
    backend = Memory()
    with ld.Logger(backend, "r", log_dir=tmp_path) as logger:
        # Its folder is a file.
        (logger.run_dir / "videos").write_text("")
        with pytest.warns(ld.LoggingWarning, match="step 0") as warned:
            for step in range(3):
                logger.log({"x": 1.0}, step)
                logger.log_video("v", noise(2, 3), step)
                logger.flush(LIMIT)
        assert len(warned) == 1
        (logger.run_dir / "videos").unlink()
        logger.log_video("v", noise(2, 3), 3)
    assert [body["step"] for body in clip_events(logger)] == [3]
    assert [step for step, _ in backend.rows] == [0, 1, 2]
