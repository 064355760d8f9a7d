"""Curves of runs, as they are drawn: all points of each metric, with the band around it."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lerax_dist.backends.console._view import HEADLINE, OWN, chosen_metric
from lerax_dist.cli._reader import JournalReader
from lerax_dist.journal._record import Row

_MOST_POINTS = 2000
_PARTS = ("_min", "_max", "_std")


class Band(NamedTuple):
    """A curve and what is around it.

    Attributes:
        steps: steps in rising order.
        values: values there.
        low: lower edge of the band; NaN where there is none.
        high: upper edge.
    """

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


def names_in(journal: Path) -> list[str]:
    """Names of all metrics of a run, in order of first appearance.

    Raises:
        OSError: the journal cannot be read.
    """
    names: dict[str, None] = {}
    for _, record in JournalReader(journal).records():
        if isinstance(record, Row):
            names |= dict.fromkeys(record.names)
    return list(names)


def choose(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The metrics that patterns mean, in the order of the patterns.

    What is drawn as the band of a metric is drawn by itself only if it is asked for by name.

    Args:
        names: all that there are.
        patterns: names or patterns; nothing for the metric that tells most of a run.

    Raises:
        ValueError: there is none that a pattern means.
    """
    names = [name for name in names if not name.startswith(OWN) or patterns]
    if not patterns:
        headline = chosen_metric(names, HEADLINE)
        return [headline] if headline is not None else names[:1]
    parts = {name + part for name in names for part in _PARTS}
    chosen: dict[str, None] = {}
    for pattern in patterns:
        if pattern in names:
            chosen[pattern] = None
            continue
        found = [name for name in names if fnmatchcase(name, pattern) and name not in parts]
        if not found:
            there = ", ".join(names) or "none at all"
            raise ValueError(f"there is no metric {pattern!r}. There are: {there}.")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def read_bands(journal: Path, metrics: Sequence[str]) -> dict[str, Band]:
    """Curves of a run, with the rows that stand.

    The band goes from `X_min` to `X_max` where rows have both, else one `X_std` to either side.
    Of more points than a picture can show, neighbours are taken together: the mean of the values,
    and the outermost of the edges.

    Args:
        journal: its journal.
        metrics: names of metrics; those that it lacks are left out.

    Raises:
        OSError: the journal cannot be read.
    """
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in metrics}
    for _, record in JournalReader(journal).records():
        if not isinstance(record, Row):
            continue
        found = record.metrics
        for name in metrics:
            if name in found:
                rows[name].append((record.step, *_with_edges(found, name)))
    return {
        name: _thinned(Band(*np.array(points, np.float64).T))
        for name, points in rows.items()
        if points
    }


def _with_edges(metrics: dict[str, np.float64], name: str) -> tuple[float, float, float]:
    value = metrics[name]
    low, high = metrics.get(name + "_min"), metrics.get(name + "_max")
    if low is not None and high is not None:
        return value, low, high
    spread = metrics.get(name + "_std", np.float64(np.nan))
    return value, value - spread, value + spread


def _thinned(band: Band) -> Band:
    count = len(band.steps)
    size = -(-count // _MOST_POINTS)
    if size <= 1:
        return band
    starts = np.arange(0, count, size)
    sizes = np.diff(np.append(starts, count))
    return Band(
        np.add.reduceat(band.steps, starts) / sizes,
        np.add.reduceat(band.values, starts) / sizes,
        np.fmin.reduceat(band.low, starts),
        np.fmax.reduceat(band.high, starts),
    )
