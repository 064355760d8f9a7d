"""Which rows of earlier incarnations a run supersedes that is continued.

Rows of training and of evaluation may count different things as their steps. So a checkpoint knows
how many records the journal had. Without one a row rewinds only rows of its own family: those whose
metrics are all in it, or the other way around, directly or through others. The logger's own metrics
do not count.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from lerax_dist._failures import Failures
from lerax_dist.journal import Event, JournalReader, Record, Rows, own_metrics, step_and_names


class Position(NamedTuple):
    """Where a run continues: at a step, or behind the records of a journal; 0 if unknown."""

    start_step: int
    records: int = 0
    incarnation: int = 0


def resume_at(
    position: Position, journal: Path, first: int, failures: Failures
) -> tuple[dict[str, Any], int | None]:
    """What the `resume` event of a run says that continues at a position, and the step below which
    no row is expected; `None` if rows count different steps. For the arguments see `Rewinder`."""
    start, since, before = position
    kinds: list[tuple[tuple[str, ...], np.ndarray, np.ndarray]] = []
    metrics: dict[str, int] = {}
    for batch in (each for piece in JournalReader(journal).pieces() for each in piece):
        if isinstance(batch, Rows):
            names = (*batch.names, *batch.vectors)
            kinds.append((names, np.array(batch.numbers), np.array(batch.steps)))
        elif found := step_and_names(batch[1]):
            # A clip is rendered late, so its number says nothing.
            metrics[found[1][0]] = start
        elif batch[1].body.get("incarnation", 0) > before:
            # In another folder the numbers start again.
            since = min(since, batch[0])
    numbers, steps = (np.concatenate([kind[i] for kind in kinds] or [[]]) for i in (1, 2))
    steps = steps[np.argsort(numbers)]
    lowest = None if (np.diff(steps[steps > 0]) < 0).any() else start
    by_step = int((steps >= start).sum())
    if not position.records and 10 * by_step > len(steps):
        _report(failures, by_step, len(steps), "the run", start)
    if not position.records or all(((of >= since) == (at >= start)).all() for _, of, at in kinds):
        return {"start_step": start}, lowest
    for names, of, at in kinds:
        if (of >= since).any():
            low = int(at[of >= since].min())
            metrics |= {name: min(low, metrics.get(name, low)) for name in own_metrics(names)}
    low = min(metrics.values(), default=start)
    return {"start_step": low, "before": first, "since": since, "metrics": metrics}, lowest


def _report(failures: Failures, hidden: int, total: int, names: str, step: int) -> None:
    failures.record(
        "resume",
        f"{hidden:,} of the {total:,} rows of the run so far are superseded, since {names} "
        f"continued at step {step:,}: they are hidden, and stay in the journal. If the training "
        "continues elsewhere pass `start_step`, or `state` from the checkpoint (see "
        "`logger.state()`); for another run pass another `name`.",
        kind="hidden",
    )


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
            names = ", ".join(sorted(metrics))
            _report(self._failures, self._hidden, self._total, names, first)
        is_first, self._has_begun = not self._has_begun, True
        if is_first and hidden == self._rows_from(first):
            # Nothing else is there from this step on, so all is superseded, clips as well.
            return {"start_step": first}
        start = min(metrics.values(), default=0)
        return {"start_step": start, "before": self._first, "metrics": metrics} if metrics else None

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
