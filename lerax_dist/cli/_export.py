"""All rows of runs in a file: CSV, or Parquet."""

import contextlib
import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lerax_dist.cli._reader import JournalReader
from lerax_dist.journal._record import Row

HEADS = ("run", "step", "time", "iteration")
_BATCH = 16_384


class Source(NamedTuple):
    """A run to export.

    Attributes:
        label: what to call it.
        journal: its journal.
        stop: byte of the journal up to which it is exported.
    """

    label: str
    journal: Path
    stop: int


def survey(runs: Mapping[str, Path]) -> tuple[list[Source], list[str]]:
    """What there is to export: the runs as they are now, and the names of all their metrics.

    Raises:
        OSError: a journal cannot be read.
    """
    sources, names = [], {}
    for label, journal in runs.items():
        reader = JournalReader(journal)
        for _, record in reader.records():
            if isinstance(record, Row):
                names |= dict.fromkeys(record.names)
        sources.append(Source(label, journal, reader.offset))
    return sources, list(names)


def export(sources: Sequence[Source], names: Sequence[str], path: Path) -> int:
    """Write all rows that stand.

    Args:
        sources: the runs.
        names: metrics, a column each.
        path: file to write; its end says in which format.

    Returns:
        Number of rows.

    Raises:
        OSError: a file cannot be read or written.
        RuntimeError: the format needs a package that is not installed.
    """
    if path.suffix == ".csv":
        return _write_csv(_rows(sources), names, path)
    return _write_parquet(_rows(sources), names, path)


def _rows(sources: Sequence[Source]) -> Iterator[tuple[str, Row]]:
    for label, journal, stop in sources:
        for _, record in JournalReader(journal).records(stop):
            if isinstance(record, Row):
                yield label, record


def _write_csv(rows: Iterator[tuple[str, Row]], names: Sequence[str], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*HEADS, *names])
        for label, row in rows:
            count += 1
            # `float` is written with all its digits; `None` leaves the cell empty.
            values = map(row.metrics.get, names)
            numbers = [None if value is None else float(value) for value in values]
            writer.writerow([label, row.step, row.time, row.iteration, *numbers])
    return count


def _write_parquet(rows: Iterator[tuple[str, Row]], names: Sequence[str], path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError(
            "`--export` to Parquet needs pyarrow, which is not installed. Install it by "
            "`pip install 'lerax-dist[parquet]'`, or export to a .csv, which needs nothing."
        ) from error
    kinds = (pyarrow.string(), pyarrow.int64(), pyarrow.float64(), pyarrow.int64())
    fields: list[Any] = list(zip(HEADS, kinds, strict=True))
    schema = pyarrow.schema([*fields, *((name, pyarrow.float64()) for name in names)])
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := list(itertools.islice(rows, _BATCH)):
            found = [row.metrics for _, row in batch]
            columns = [
                [label for label, _ in batch],
                [row.step for _, row in batch],
                [row.time for _, row in batch],
                [row.iteration for _, row in batch],
                *([metrics.get(name) for metrics in found] for name in names),
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            count += len(batch)
    return count


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write in place of another, which it replaces once it is whole."""
    fresh = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
