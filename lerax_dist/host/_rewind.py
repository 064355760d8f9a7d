"""Which rows of earlier incarnations a run supersedes that is continued without a step.

Rows of training and of evaluation may count different things as their steps, so a row rewinds only
rows of its own family: those whose metrics are all in it, or the other way around, directly or
through others. The logger's own metrics do not count.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.journal import Event, JournalReader, Record, Rows, own_metrics, step_and_names


@final
@dataclass(eq=False)
class _Family:
    """Sets of metrics that belong together, and the steps of the old rows and clips with them."""

    members: frozenset[frozenset[str]]
    rows: list[np.ndarray]
    clips: list[int]
    is_rewound: bool

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
        self._families: dict[frozenset[str], _Family] = {}
        self._by_metric: defaultdict[str, list[frozenset[str]]] = defaultdict(list)
        self._has_begun = False
        self._hidden = 0
        for batch in (each for piece in JournalReader(journal).pieces() for each in piece):
            if isinstance(batch, Rows):
                self._family((*batch.names, *batch.vectors)).rows.append(np.array(batch.steps))
            elif found := step_and_names(batch[1]):
                self._family(found[1]).clips.append(found[0])
        self._total = self._rows_from(0)

    def rewound(self, records: Sequence[Record]) -> list[Record]:
        """The records, with a `resume` event, if one is due, before the first row or clip."""
        begun: dict[tuple[str, ...], int] = {}
        place = 0
        for i, record in enumerate(records):
            found = step_and_names(record)
            if found is not None and not (family := self._family(found[1])).is_rewound:
                family.is_rewound = True
                place = place if begun else i
                begun[found[1]] = found[0]
        body = self._body([(self._family(names), step) for names, step in begun.items()])
        event = [] if body is None else [Event(records[place].time, "resume", body)]
        return [*records[:place], *event, *records[place:]]

    def _body(self, begun: Sequence[tuple[_Family, int]]) -> dict[str, Any] | None:
        """What an event says of families that begin at these steps; `None` if it is not due."""
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
            self._report(", ".join(sorted(metrics)), first)
        is_first, self._has_begun = not self._has_begun, True
        if is_first and hidden == self._rows_from(first):
            # Nothing else is there from this step on, so all is superseded, clips as well.
            return {"start_step": first}
        start = min(metrics.values(), default=0)
        return {"start_step": start, "before": self._first, "metrics": metrics} if metrics else None

    def _report(self, names: str, step: int) -> None:
        self._failures.record(
            "resume",
            f"{self._hidden:,} of the {self._total:,} rows of the run so far are superseded, since "
            f"{names} continued at step {step:,}: they are hidden, and stay in the journal. If the "
            "training continues elsewhere pass `start_step`, or `state` from the checkpoint (see "
            "`logger.state()`); for another run pass another `name`.",
            kind="hidden",
        )

    def _rows_from(self, step: int) -> int:
        return sum(family.rows_from(step) for family in {*self._families.values()})

    def _family(self, names: tuple[str, ...]) -> _Family:
        """The family of rows with such metrics; what they connect becomes one."""
        own = own_metrics(names)
        if own in self._families:
            return self._families[own]
        # By the metrics: a program may make thousands of them of its data.
        sharing = (other for name in own for other in self._by_metric[name])
        others = {self._families[other] for other in sharing if own <= other or other <= own}
        family = _Family(
            frozenset([own]).union(*(other.members for other in others)),
            [steps for other in others for steps in other.rows],
            [step for other in others for step in other.clips],
            # What has not been rewound of them still may be.
            bool(others) and all(other.is_rewound for other in others),
        )
        self._families.update(dict.fromkeys(family.members, family))
        for name in own:
            self._by_metric[name].append(own)
        return family
