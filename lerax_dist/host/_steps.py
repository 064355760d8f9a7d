"""Where a row lies on the x-axis: at its own step, behind those that were done before."""

from collections.abc import Sequence
from typing import final

from lerax_dist._failures import Failures


@final
class RowSteps:
    """Moves the steps of rows, so that a program that counts from 0 continues the curve.

    Every step is moved by `step_offset`. Iterations of a second training of the same logger that
    begins anew are moved behind the first, where they would lie on top of it.
    """

    def __init__(self, offset: int, start_step: int | None, failures: Failures) -> None:
        """
        Args:
            offset: `step_offset`.
            start_step: step at which this start of a resumed run continues; `None` if there is none
                or it is unknown.
            failures: where to record steps that go back.
        """
        self._offset = offset
        self._start_step = start_step or 0
        self._failures = failures
        # Steps of the trainings of this logger before this one, without the offset.
        self._before = 0
        self._is_new = False
        # Number and step, without the offset, of the last row of an iteration.
        self._last = (0, 0)

    def start(self, iteration: int) -> None:
        """A training starts after `iteration` iterations."""
        self._is_new = iteration == 0

    def total(self, total: int) -> int:
        """Steps at the end of a training that takes `total` steps; 0 if that is unknown."""
        before = self._last[1] if self._is_new else self._before
        return total + self._offset + before if total else 0

    def place(self, steps: list[int], numbers: Sequence[int] | None) -> list[int]:
        """The steps of rows; `numbers` are those of their iterations, if they are of iterations."""
        placed = [step + self._offset for step in steps]
        for i, number in enumerate(numbers or ()):
            last_number, last_step = self._last
            if self._is_new:
                self._before = last_step if steps[i] <= last_step else 0
            elif number < last_number and steps[i] + self._before < last_step:
                self._failures.record(
                    "steps",
                    f"iteration {number} at step {steps[i]} comes after iteration {last_number} at "
                    f"step {last_step}: its rows lie on top of earlier ones. Call "
                    "`on_training_start` where a training starts, and they continue the curve; or "
                    "use a logger for each training.",
                    kind="back",
                )
            self._is_new = False
            self._last = (number, steps[i] + self._before)
            placed[i] += self._before
        # A single row at step 0 is the number of parameters, or a first evaluation.
        lowest = min((place for own, place in zip(steps, placed, strict=True) if own), default=None)
        if lowest is not None and lowest < self._start_step:
            self._failures.record(
                "steps",
                f"a row came at step {lowest}, below step {self._start_step} at which this start "
                "of the run continues: it lies on top of older rows. If the program counts from 0 "
                "again, pass the steps done before as `step_offset`, e.g. `state.last_step`.",
                kind="below",
            )
        return placed
