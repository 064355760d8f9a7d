"""Which rows of earlier incarnations a run supersedes that is continued without a step.

Rows of training and of evaluation may count different things as their steps, so a row rewinds only
rows of its own family: those whose metrics are all in it, or the other way around, directly or
through others. The logger's own metrics do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.journal import (
    Event,
    JournalReader,
    Record,
    Rows,
    own_metrics,
    step_and_names,
)


@final
@dataclass(eq=False)
class _Family:
    """Rows or clips that are rewound together; `rows` and `clips` are steps of old ones."""

    members: set[frozenset[str]] = field(default_factory=set)
    rows: list[np.ndarray] = field(default_factory=list)
    clips: list[int] = field(default_factory=list)
    is_rewound: bool = False

    def rows_from(self, step: int) -> int:
        """How many old rows are at a step or after it."""
        return sum(int((steps >= step).sum()) for steps in self.rows)

    def absorb(self, other: "_Family") -> None:
        """Become one with another family; what has not been rewound of either still may be."""
        self.members |= other.members
        self.rows += other.rows
        self.clips += other.clips
        self.is_rewound &= other.is_rewound

    @property
    def metrics(self) -> frozenset[str]:
        """All metrics of its rows."""
        return frozenset[str]().union(*self.members)


@final
class Rewinder:
    """Makes the `resume` events of a run; the first row of each family decides.

    Args:
        journal: its journal, which is read.
        first: number of the first record of this incarnation.
        failures: where to report that many rows are hidden.

    Raises:
        OSError: the journal cannot be read.
    """

    def __init__(self, journal: Path, first: int, failures: Failures) -> None:
        self._first = first
        self._failures = failures
        self._by_metric: dict[str, set[_Family]] = {}
        self._by_names: dict[tuple[str, ...], _Family] = {}
        self._has_begun = False
        self._hidden = 0
        for batch in (each for piece in JournalReader(journal).pieces() for each in piece):
            if isinstance(batch, Rows):
                family = self._family((*batch.names, *batch.vectors))
                family.rows.append(np.array(batch.steps))
            elif found := step_and_names(batch[1]):
                self._family(found[1]).clips.append(found[0])
        self._total = self._rows_from(0)

    def rewound(self, records: Sequence[Record]) -> list[Record]:
        """The records, with a `resume` event, if one is due, before the first row or clip."""
        begun: list[tuple[tuple[str, ...], int]] = []
        place = 0
        for i, record in enumerate(records):
            found = step_and_names(record)
            family = None if found is None else self._family(found[1])
            if found is not None and family is not None and not family.is_rewound:
                family.is_rewound = True
                place = place if begun else i
                begun.append((found[1], found[0]))
        body = self._body([(self._family(names), step) for names, step in begun]) if begun else None
        if body is None:
            return [*records]
        event = Event(records[place].time, "resume", body)
        return [*records[:place], event, *records[place:]]

    def _body(self, begun: list[tuple[_Family, int]]) -> dict[str, object] | None:
        first = min(step for _, step in begun)
        hidden = sum(family.rows_from(step) for family, step in begun)
        is_whole = not self._has_begun and hidden == self._rows_from(first)
        self._has_begun = True
        metrics: dict[str, int] = {}
        for family, step in begun:
            if is_whole or not (family.rows_from(step) or any(at >= step for at in family.clips)):
                continue
            for name in family.metrics:
                metrics[name] = min(step, metrics.get(name, step))
        self._warn(hidden, begun)
        if is_whole:
            return {"start_step": first}
        if not metrics:
            return None
        start = min(metrics.values())
        return {"start_step": start, "before": self._first, "metrics": metrics}

    def _rows_from(self, step: int) -> int:
        return sum(family.rows_from(step) for family in {*self._by_names.values()})

    def _warn(self, hidden: int, begun: list[tuple[_Family, int]]) -> None:
        self._hidden += hidden
        if 10 * self._hidden <= self._total:
            return
        family, step = max(begun, key=lambda both: both[0].rows_from(both[1]))
        name = min(family.metrics, default="a row")
        self._failures.record(
            "resume",
            f"{self._hidden:,} of the {self._total:,} rows of the run so far are superseded, since "
            f"{name!r} continues at step {step:,}: they are hidden, and stay in the journal. If "
            "the training continues elsewhere pass `start_step`, or `state` from the checkpoint "
            '(see `logger.state()`); for another run pass another `name`, or `resume="never"`.',
            kind="hidden",
        )

    def _family(self, names: tuple[str, ...]) -> _Family:
        """The family of rows with such metrics; what they connect becomes one."""
        known = self._by_names.get(names)
        if known is not None:
            return known
        own = own_metrics(names)
        # By the metrics: a program may make thousands of them of its data.
        sharing = {f for name in own for f in self._by_metric.get(name, ())}
        near = [f for f in sharing if any(own <= m or m <= own for m in f.members)]
        family = near.pop() if near else _Family()
        family.members.add(own)
        for other in near:
            family.absorb(other)
        if near:
            self._by_names = {n: family if f in near else f for n, f in self._by_names.items()}
        self._by_names[names] = family
        for name in frozenset(own).union(*(m for other in near for m in other.members)):
            self._by_metric[name] = (self._by_metric.get(name, set()) - {*near}) | {family}
        return family
