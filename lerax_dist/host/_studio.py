"""Where clips become frames and files, in a thread of its own: rows never wait for them."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.host._clip_file import save_clip
from lerax_dist.host._film import Clip, Film, FilmPart, Matcher
from lerax_dist.journal._record import Event

Deliver = Callable[[int, int, Any], None]

# Clips that are being drawn or wait for it. A row is some hundred bytes, a clip may be megabytes.
_MOST_CLIPS = 4


@final
class Studio:
    """Takes clips from the devices, draws them, keeps them as files, and tells the journal.

    Parts of clips go through the queue of rows, so that a clip finds its row in the thread that
    writes rows: `part`, `row` and `restart` are for that thread alone.
    """

    def __init__(self, put: Callable[[Any], None], run_dir: Path, failures: Failures) -> None:
        """
        Args:
            put: adds to what the writer of the journal empties; it must never wait.
            run_dir: folder of the run; clips are kept in `videos` there.
            failures: where to keep what goes wrong.
        """
        self._put = put
        self._run_dir = run_dir
        self._failures = failures
        self._matcher = Matcher()
        self._clips: SimpleQueue[Clip | None] = SimpleQueue()
        self._changed = threading.Condition()
        # Parts still to come of the clips that are arriving, and whether they are taken.
        self._arriving: dict[int, tuple[int, bool]] = {}
        self._taken = 0
        self._to_draw = 0
        self._skipped = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def opened(self) -> bool:
        """Whether there may be clips."""
        return self._thread is not None

    def clips(self, film: Film) -> Deliver:
        """What takes the clips of one kind from the devices. It never raises and never waits.

        Args:
            film: what they have in common.
        """
        self._start()

        def deliver(part: int, parts: int, payload: Any) -> None:
            try:
                # A copy, not a view: the runtime may reuse the buffer once this returns.
                copy = np.asarray(payload).copy()
                if self._is_taken(int(copy[0]), parts):
                    self._put(FilmPart(film, part, parts, copy, time.time()))
            except Exception as error:
                self._failures.record("video", f"a clip could not be taken ({error!r})", error)

        return deliver

    def frames(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        """Takes a clip from a plain loop, whose frames and step are known. It never waits.

        Args:
            tag: metric name.
            frames: `uint8` of shape `(T, H, W, C)`, which nobody changes any more.
            step: global step.
            fps: frames a second.
        """
        self._start()
        # A number that no iteration of a compiled step has.
        if self._is_taken(-1 - step, 1):
            self._draw(Clip(Film(tag, fps, np.asarray), step, step, time.time(), frames))

    def refuse(self, error: Exception) -> None:
        """There will be no clips, and this is why."""
        self._failures.record("video", f"there will be none: {error}", error)

    def _start(self) -> None:
        # Not before there are clips: most runs have none. And not in a callback, for a thread
        # cannot be started once the interpreter is ending.
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="lerax_dist-video", daemon=True)
            self._thread.start()

    def _is_taken(self, iteration: int, parts: int) -> bool:
        """Whether the clip that this part is of is one to keep; asked once for each part."""
        with self._changed:
            if iteration not in self._arriving:
                taken = self._taken < _MOST_CLIPS and not self._closed
                self._taken += taken
                self._skipped += not taken
                self._arriving[iteration] = parts, taken
            left, taken = self._arriving.pop(iteration)
            if left > 1:
                self._arriving[iteration] = left - 1, taken
        if not taken:
            self._failures.record(
                "video",
                "clips come faster than they can be drawn, so some are left out. "
                "Use a higher `video_interval`, or a lower `video_num_steps`.",
            )
        return taken

    def part(self, part: FilmPart) -> None:
        """A part of a clip arrives. For the writer's thread."""
        self._draw(self._matcher.part(part))

    def row(self, iteration: int | None, step: int) -> None:
        """A row is written; its clip may have waited for it. For the writer's thread."""
        if self._thread is not None and iteration is not None:
            self._draw(self._matcher.row(iteration, step))

    def restart(self) -> None:
        """Another training starts, whose iterations count anew. For the writer's thread."""
        self._lose(self._matcher.restart())

    def _lose(self, clips: int) -> None:
        if clips:
            with self._changed:
                self._taken -= clips
            self._failures.record(
                "video", f"{clips} clips had no row of their iteration, so they have no step"
            )

    def _draw(self, clip: Clip | None) -> None:
        if clip is not None:
            with self._changed:
                self._to_draw += 1
            self._clips.put(clip)

    def _run(self) -> None:
        while (clip := self._clips.get()) is not None:
            try:
                self._put(self._event(clip))
            except BaseException as error:
                # Whoever draws may be the user's, and may raise anything.
                self._failures.record(
                    "video", f"the clip at step {clip.step} could not be drawn: {error}", error
                )
            finally:
                with self._changed:
                    self._taken -= 1
                    self._to_draw -= 1
                    self._changed.notify_all()
            # Its frames may be many MiB, and the next may be hours away.
            del clip

    def _event(self, clip: Clip) -> Event:
        film = clip.film
        frames = film.develop(clip.body)
        path = _free(self._run_dir / "videos" / film.tag, clip.step)
        save_clip(path, frames, film.fps)
        body = {
            "tag": film.tag,
            "step": clip.step,
            "iteration": clip.iteration,
            "fps": film.fps,
            "shape": list(frames.shape),
            "file": path.relative_to(self._run_dir).as_posix(),
        }
        return Event(clip.time, "video", body)

    def wait(self, timeout: float) -> int:
        """Wait until every clip that has found its row is drawn and in the queue.

        Args:
            timeout: how long to wait at most, in seconds.

        Returns:
            How many are missing.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._to_draw == 0, timeout)
            return self._to_draw

    def close(self, timeout: float) -> None:
        """Take nothing more, and wait for what is there. The writer must have nothing to do.

        Args:
            timeout: how long to wait at most, in seconds.
        """
        self._closed = True
        missing = self.wait(timeout)
        # After what is left, which nobody waits for any more.
        self._clips.put(None)
        if missing:
            self._failures.record(
                "video", f"{missing} clips were not drawn within {timeout:.0f} s; they are lost"
            )
        self._lose(self._matcher.restart())


def _free(folder: Path, step: int) -> Path:
    """A file of that step that is not there yet: a step that comes again replaces nothing."""
    path, again = folder / f"{step:012d}.png", 2
    while path.exists():
        path, again = folder / f"{step:012d}_{again}.png", again + 1
    return path
