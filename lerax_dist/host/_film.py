"""Clips on their way to frames: put together, given the steps of their rows. Decisions, no thread.

A clip and the row of its iteration come by different callbacks, in any order. The step is in the
row alone, for only the whole run knows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

# Steps of the latest rows, for the clips of theirs that come after them.
_MOST_STEPS = 256


@final
@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What clips of one kind have in common.

    Attributes:
        tag: metric name.
        fps: frames a second.
        develop: makes the frames, `uint8` of shape `(T, H, W, C)`, of what came from the device.
    """

    tag: str
    fps: float
    develop: Callable[[np.ndarray], np.ndarray]


@final
@dataclass(frozen=True, slots=True, eq=False)
class FilmPart:
    """One payload of a clip, as it came: the iteration, then a part of the body."""

    film: Film
    part: int
    parts: int
    payload: np.ndarray
    time: float


class Clip(NamedTuple):
    """A whole clip, to be developed.

    Attributes:
        film: how.
        step: global step.
        iteration: number of the iteration.
        time: when it reached the host, in seconds since the epoch.
        body: what came from the device.
    """

    film: Film
    step: int
    iteration: int
    time: float
    body: np.ndarray


@final
class Matcher:
    """Puts clips together and finds their steps. For one thread."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[int, FilmPart]] = {}
        self._whole: dict[int, list[FilmPart]] = {}
        self._steps: dict[int, int] = {}

    def part(self, part: FilmPart) -> Clip | None:
        """A part arrives: the clip, if all of it and its step are known now."""
        iteration = int(part.payload[0])
        there = self._parts.setdefault(iteration, {})
        there[part.part] = part
        if len(there) < part.parts:
            return None
        del self._parts[iteration]
        self._whole[iteration] = [there[place] for place in range(part.parts)]
        return self._clip(iteration)

    def row(self, iteration: int, step: int) -> Clip | None:
        """A row is written: the clip that waited for it, if one did."""
        latest = next(reversed(self._steps), -1)
        if iteration <= latest:
            # Counted from the start again: what is known is of an earlier training.
            self._steps = {i: s for i, s in self._steps.items() if i < iteration}
        self._steps[iteration] = step
        if len(self._steps) > _MOST_STEPS:
            del self._steps[next(iter(self._steps))]
        return self._clip(iteration)

    def restart(self) -> int:
        """Another training starts: how many clips will never get a step."""
        left = len(self._whole) + len(self._parts)
        self._parts, self._whole, self._steps = {}, {}, {}
        return left

    def _clip(self, iteration: int) -> Clip | None:
        if iteration not in self._whole or iteration not in self._steps:
            return None
        parts, step = self._whole.pop(iteration), self._steps.pop(iteration)
        body = np.concatenate([part.payload[1:] for part in parts])
        return Clip(parts[0].film, step, iteration, parts[0].time, body)
