"""Video clips: matched with the row that has their step, rendered, saved. Rows never wait for them.

A clip and the row of its iteration arrive by different callbacks, in any order, and only the row
knows the step. `ClipMatcher` (pure) pairs them in the thread that writes rows; `ClipRenderer` makes
the frames and the file in a separate thread, and queues a `video` event for the journal.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist._schema import HostCallback
from lerax_dist.host._clip_file import save_clip
from lerax_dist.journal import Event, Journal, unused_path

# Steps of the latest rows that are kept for clips that arrive after their row.
_MAX_STEPS = 256
# Bytes of the clips that are being rendered or wait for it.
_BOUND = 256 << 20
# How long a clip from a plain loop waits for room while no other is finished, in seconds.
_ROOM_TIMEOUT = 60.0


@final
@dataclass(frozen=True, slots=True, eq=False)
class ClipSpec:
    """What all clips of one kind share.

    Attributes:
        tag: metric name.
        fps: frames per second.
        render: makes the frames, `uint8` of shape `(T, H, W, C)`, from the int32 words that the
            device sent.
    """

    tag: str
    fps: float
    render: Callable[[np.ndarray], np.ndarray]


@final
@dataclass(frozen=True, slots=True, eq=False)
class ClipPart:
    """One part, of `parts`, of a clip as it arrived, at `time` in seconds since the epoch.

    Word 0 of its int32 payload is the iteration, the rest a part of the body.
    """

    spec: ClipSpec
    part: int
    parts: int
    payload: np.ndarray
    time: float


class Clip(NamedTuple):
    """A complete clip, ready to be rendered; `body` is what `spec.render` takes."""

    spec: ClipSpec
    step: int
    iteration: int
    time: float
    body: np.ndarray


@final
class ClipMatcher:
    """Joins the parts of each clip and finds its step. Pure bookkeeping, for one thread."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[int, ClipPart]] = {}
        self._complete: dict[int, list[ClipPart]] = {}
        self._steps: dict[int, int] = {}

    def part(self, part: ClipPart) -> Clip | None:
        """Add a part; returns the clip if it is complete now and its step is known."""
        iteration = int(part.payload[0])
        arrived = self._parts.setdefault(iteration, {})
        arrived[part.part] = part
        if len(arrived) < part.parts:
            return None
        del self._parts[iteration]
        self._complete[iteration] = [arrived[i] for i in range(part.parts)]
        return self._match(iteration)

    def row(self, iteration: int, step: int) -> Clip | None:
        """Add the step of an iteration; returns the clip that was waiting for it, if any."""
        latest = next(reversed(self._steps), -1)
        if iteration <= latest:
            # Iterations count from the start again: later ones belong to an earlier training.
            self._steps = {i: s for i, s in self._steps.items() if i < iteration}
        self._steps[iteration] = step
        if len(self._steps) > _MAX_STEPS:
            del self._steps[next(iter(self._steps))]
        return self._match(iteration)

    def restart(self) -> list[list[ClipPart]]:
        """Forget everything, as another training starts; returns the clips that had no step."""
        dropped = [*self._complete.values(), *([*parts.values()] for parts in self._parts.values())]
        self._parts, self._complete, self._steps = {}, {}, {}
        return dropped

    def _match(self, iteration: int) -> Clip | None:
        if iteration not in self._complete or iteration not in self._steps:
            return None
        parts, step = self._complete.pop(iteration), self._steps.pop(iteration)
        body = np.concatenate([part.payload[1:] for part in parts])
        return Clip(parts[0].spec, step, iteration, parts[0].time, body)


@final
class ClipRenderer:
    """Receives clips, renders them, saves each to a file, and queues an event for the journal.

    Parts of clips pass through the queue of rows, so that the thread that writes rows pairs them:
    only that thread may call `part`, `row` and `restart`. The clips under way are bounded in bytes;
    one that is dropped is an event in the journal.

    Attributes:
        opened: whether there may be clips; then rows must be passed to `row`.
    """

    def __init__(
        self, put: Callable[[ClipPart | Event], None], journal: Journal, failures: Failures
    ) -> None:
        """
        Args:
            put: adds an item to the queue that the journal's writer empties; it must never block.
            journal: that of the run; clips are saved in `videos` beside it.
            failures: where to record what fails.
        """
        self.opened = False
        self._put = put
        self._journal = journal
        self._failures = failures
        self._matcher = ClipMatcher()
        self._clips: SimpleQueue[Clip | None] = SimpleQueue()
        self._changed = threading.Condition()
        # Iteration of each clip that is arriving -> (parts still to come, whether it is accepted).
        self._arriving: dict[int, tuple[int, bool]] = {}
        self._bytes = 0
        self._to_render: list[Clip] = []
        self._closed = False

    def clip_callback(self, spec: ClipSpec) -> HostCallback:
        """The callback that receives clips of one kind from the devices. Never raises or waits."""
        self._start()

        def receive(part: int, parts: int, payload: Any) -> None:
            try:
                # A copy, not a view: the runtime may reuse the buffer once this returns.
                copy = np.asarray(payload).copy()
                if self._accept(spec, int(copy[0]), parts, copy[1:].nbytes):
                    self._put(ClipPart(spec, part, parts, copy, time.time()))
            except Exception as error:
                self._failures.record("video", f"failed to receive a clip ({error!r})", error)

        return receive

    def frames(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        """Save a clip whose frames and step are known already. It waits for room.

        `frames` are `uint8` of shape `(T, H, W, C)`; the caller must not change them afterwards.
        """
        self._start()
        size = frames.nbytes
        with self._changed:
            # As long as clips are finished, however slowly.
            while not (has_room := self._fits(size)) and self._changed.wait(_ROOM_TIMEOUT):
                pass
            self._bytes += size * has_room
        if has_room:
            spec = ClipSpec(tag, fps, np.asarray)
            self._render(Clip(spec, step, step, time.time(), frames))
        else:
            reason = f"no clip was rendered for {_ROOM_TIMEOUT:g} s"
            self._record_dropped(tag, step, None, reason)

    def disable_clips(self, error: Exception) -> None:
        """Record that there will be no clips, because of an error."""
        self._failures.record("video", f"video recording disabled: {error}", error)

    def _start(self) -> None:
        # Not before there are clips: most runs have none. And not in a callback: a thread cannot
        # be started while the interpreter shuts down.
        if not self.opened and not self._closed:
            threading.Thread(target=self._run, name="lerax_dist-video", daemon=True).start()
            self.opened = True

    def _fits(self, size: int) -> bool:
        return self._bytes == 0 or self._bytes + size <= _BOUND

    def _accept(self, spec: ClipSpec, iteration: int, parts: int, size: int) -> bool:
        """Whether to keep the clip of this iteration. To be called once for each of its parts, of
        about the same `size` in bytes."""
        with self._changed:
            is_first = iteration not in self._arriving
            if is_first:
                accepted = self._fits(size * parts) and not self._closed
                self._arriving[iteration] = parts, accepted
            left, accepted = self._arriving.pop(iteration)
            self._bytes += size * accepted
            if left > 1:
                self._arriving[iteration] = left - 1, accepted
        if is_first and not accepted:
            reason = (
                f"clips arrive faster than they can be rendered, and {_BOUND >> 20} MiB of them "
                "wait. Use a higher `video_interval` or a lower `video_num_steps`"
            )
            self._record_dropped(spec.tag, None, iteration, reason)
        return accepted

    def _record_dropped(
        self, tag: str, step: int | None, iteration: int | None, reason: str
    ) -> None:
        """Record that a clip is dropped, as a failure and in the journal."""
        self._failures.record("video", f"dropped clips of {tag!r}: {reason}")
        self._put_dropped(tag, step, iteration, reason)

    def _put_dropped(self, tag: str, step: int | None, iteration: int | None, reason: str) -> None:
        body = {"what": "video", "tag": tag, "step": step, "iteration": iteration, "reason": reason}
        self._put(Event(time.time(), "dropped", body))

    def part(self, part: ClipPart) -> None:
        """A part of a clip was taken from the queue. For the writer thread only."""
        self._render(self._matcher.part(part))

    def row(self, iteration: int | None, step: int) -> None:
        """A row was written; a clip may have waited for its step. For the writer thread only."""
        if iteration is not None:
            self._render(self._matcher.row(iteration, step))

    def forget_parts(self) -> None:
        """Another training starts: parts that have not arrived never will. For its callback."""
        with self._changed:
            self._arriving.clear()

    def restart(self) -> None:
        """Another training starts and counts its iterations anew. For the writer thread only."""
        for parts in self._matcher.restart():
            with self._changed:
                self._bytes -= sum(part.payload[1:].nbytes for part in parts)
            reason = "no row was logged for their iteration, so their step is unknown"
            self._record_dropped(parts[0].spec.tag, None, int(parts[0].payload[0]), reason)

    def _render(self, clip: Clip | None) -> None:
        if clip is not None:
            with self._changed:
                self._to_render.append(clip)
            self._clips.put(clip)

    def _run(self) -> None:
        while (clip := self._clips.get()) is not None:
            try:
                self._put(self._save(clip))
            except BaseException as error:
                # `render` may be the user's and may raise anything, `SystemExit` too.
                self._failures.record(
                    "video", f"failed to render the clip at step {clip.step}: {error}", error
                )
                why = f"failed to render it ({error!r})"
                self._put_dropped(clip.spec.tag, clip.step, clip.iteration, why)
            finally:
                with self._changed:
                    self._bytes -= clip.body.nbytes
                    # In their order.
                    del self._to_render[0]
                    self._changed.notify_all()
            # Its frames may be many MiB, and the next clip may be hours away.
            del clip

    def _save(self, clip: Clip) -> Event:
        """Render and save a clip; returns the event for the journal."""
        spec = clip.spec
        frames = spec.render(clip.body)
        # A step that comes again overwrites nothing.
        folder = self._journal.folder
        path = unused_path(folder / "videos" / spec.tag / f"{clip.step:012d}.png")
        save_clip(path, frames, spec.fps)
        body = {
            "tag": spec.tag,
            "step": clip.step,
            "iteration": clip.iteration,
            "fps": spec.fps,
            "shape": list(frames.shape),
            "file": path.relative_to(folder).as_posix(),
        }
        return Event(clip.time, "video", body)

    def wait(self, timeout: float) -> int:
        """Wait until every clip whose step is known is rendered and its event is queued, at most
        `timeout` seconds; returns how many are not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._to_render, timeout)
            return len(self._to_render)

    def close(self, timeout: float) -> None:
        """Accept no more clips, and wait for those under way, at most `timeout` seconds. The writer
        thread must be idle."""
        self._closed = True
        self.wait(timeout)
        with self._changed:
            lost = [*self._to_render]
        # Behind the clips that are left, so that the thread ends after them.
        self._clips.put(None)
        why = f"not rendered within {timeout:.0f} s"
        if lost:
            self._failures.record("video", f"lost {len(lost)} clip(s): {why}")
        for clip in lost:
            self._put_dropped(clip.spec.tag, clip.step, clip.iteration, why)
        self.restart()
