"""Which rows of earlier incarnations a run supersedes that is continued without a step.

Rows of training and of evaluation may count different things as their steps, so a row rewinds only
rows of its own family: those whose metrics are all in it, or the other way around, directly or
through others. The logger's own metrics do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.journal import Event, JournalReader, Record, Rows, own_metrics, step_and_names


@final
@dataclass(eq=False)
class _Family:
    """Sets of metrics, and the steps of old rows and clips that have them."""

    members: set[frozenset[str]] = field(default_factory=set)
    rows: list[np.ndarray] = field(default_factory=list)
    clips: list[int] = field(default_factory=list)
    is_rewound: bool = False

    def rows_from(self, step: int) -> int:
        return sum(int((steps >= step).sum()) for steps in self.rows)


@final
class Rewinder:
    """Makes the `resume` events of a run; the first row of each family decides.

    Args:
        journal: its journal, which is read; `OSError` if it cannot be.
        first: number of the first record of this incarnation.
        failures: where to report that many rows are hidden.
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
        begun: dict[tuple[str, ...], int] = {}
        place = 0
        for i, record in enumerate(records):
            found = step_and_names(record)
            if found is not None and not self._family(found[1]).is_rewound:
                self._family(found[1]).is_rewound = True
                place = place if begun else i
                begun[found[1]] = found[0]
        body = self._body([(self._family(names), step) for names, step in begun.items()])
        event = [] if body is None else [Event(records[place].time, "resume", body)]
        return [*records[:place], *event, *records[place:]]

    def _body(self, begun: Sequence[tuple[_Family, int]]) -> dict[str, Any] | None:
        if not begun:
            return None
        first = min(step for _, step in begun)
        hidden = sum(family.rows_from(step) for family, step in begun)
        metrics: dict[str, int] = {}
        for family, step in begun:
            if family.rows_from(step) or any(clip >= step for clip in family.clips):
                for name in frozenset[str]().union(*family.members):
                    metrics[name] = min(step, metrics.get(name, step))
        self._hidden += hidden
        if 10 * self._hidden > self._total:
            names = ", ".join(sorted(metrics))
            self._failures.record(
                "resume",
                f"{self._hidden:,} of the {self._total:,} rows of the run so far are superseded, "
                f"since {names} continued at step {first:,}: they are hidden, and stay in the "
                "journal. If the training continues elsewhere pass `start_step`, or `state` from "
                "the checkpoint (see `logger.state()`); for another run pass another `name`.",
                kind="hidden",
            )
        is_first, self._has_begun = not self._has_begun, True
        if is_first and hidden == self._rows_from(first):
            # Nothing else is there from this step on, so all is superseded, clips as well.
            return {"start_step": first}
        start = min(metrics.values(), default=0)
        return {"start_step": start, "before": self._first, "metrics": metrics} if metrics else None

    def _rows_from(self, step: int) -> int:
        return sum(family.rows_from(step) for family in {*self._by_names.values()})

    def _family(self, names: tuple[str, ...]) -> _Family:
        """The family of rows with such metrics; what they connect becomes one."""
        known = self._by_names.get(names)
        if known is not None:
            return known
        own = own_metrics(names)
        # By the metrics: a program may make thousands of them of its data.
        sharing = {f for name in own for f in self._by_metric.get(name, ())}
        family, *others = [
            *(f for f in sharing if any(own <= m or m <= own for m in f.members)),
            _Family(),
        ]
        for other in others:
            family.rows += other.rows
            family.clips += other.clips
            # What has not been rewound of either still may be.
            family.is_rewound &= other.is_rewound or not other.members
        family.members.update([own], *(other.members for other in others))
        if others[:-1]:
            self._by_names = {n: family if f in others else f for n, f in self._by_names.items()}
        self._by_names[names] = family
        for name in own.union(*(m for other in others for m in other.members)):
            self._by_metric[name] = self._by_metric.get(name, set()).difference(others) | {family}
        return family
