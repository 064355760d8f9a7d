"""`lerax-dist watch --export`: the rows of runs as one CSV or Parquet file, by `read_run`."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lerax_dist.cli._print import print_error
from lerax_dist.cli._watch import labels_of
from lerax_dist.journal import RunData, read_run, replace_file

_HEADS = ("run", "step", "time", "iteration")


def export(run_dirs: Sequence[str], table: str) -> int:
    """Write the rows of runs into the file `table`, whose suffix is its format.

    Returns:
        Exit status.
    """
    try:
        path = Path(table)
        if path.suffix not in _WRITERS:
            raise ValueError(
                f"`--export` {table!r} must end in {' or '.join(_WRITERS)}. Use e.g. "
                f"{path.stem}.csv."
            )
        if not path.parent.is_dir():
            raise ValueError(
                f"`--export` {table!r} must be in a folder that exists, and {path.parent} does "
                "not. Make the folder first, or export into another."
            )
        runs = dict(zip(labels_of(run_dirs), map(read_run, run_dirs), strict=True))
        names = list(dict.fromkeys(name for run in runs.values() for name in run.columns))
        write = _WRITERS[path.suffix]
        replace_file(path, lambda file: write(file, runs, names))
    except (OSError, ValueError, RuntimeError) as error:
        print_error(f"lerax-dist watch: {error}")
        return 1
    rows = sum(map(len, runs.values()))
    of = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    print_error(f"{rows:,} rows with {len(names):,} metrics of {of} in {path}")
    return 0


def _write_csv(file: BinaryIO, runs: Mapping[str, RunData], names: Sequence[str]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow([*_HEADS, *names])
    for label, run in runs.items():
        columns = [_cells(run, name) for name in names]
        iterations = [None if number < 0 else number for number in run.iterations.tolist()]
        heads = ([label] * len(run), run.steps.tolist(), run.times.tolist(), iterations)
        # A list is written as JSON; a float with all its digits; `None` leaves a cell empty.
        for row in zip(*heads, *columns, strict=True):
            writer.writerow([json.dumps(c) if isinstance(c, list) else c for c in row])
    text.flush()
    text.detach()


def _write_parquet(file: BinaryIO, runs: Mapping[str, RunData], names: Sequence[str]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeError(
            "`--export` to Parquet needs pyarrow, which is not installed. Run `pip install "
            "pyarrow`, or export to a .csv file, which needs no package."
        ) from error
    number, vector = pyarrow.float64(), pyarrow.list_(pyarrow.float64())
    kinds = [pyarrow.string(), pyarrow.int64(), number, pyarrow.int64()]
    kinds += [vector if _is_vector(runs, name) else number for name in names]
    schema = pyarrow.schema(list(zip([*_HEADS, *names], kinds, strict=True)))
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for label, run in runs.items():
            iterations = pyarrow.array(run.iterations, mask=run.iterations < 0)
            heads = [[label] * len(run), run.steps, run.times, iterations]
            cells: list[Any] = [_cells(run, name) for name in names]
            writer.write_table(pyarrow.table([*heads, *cells], schema=schema))


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet}


def _cells(run: RunData, name: str) -> list[Any]:
    """A value for each row, `None` where a row has none: not NaN, which a row may have."""
    if name not in run:
        return [None] * len(run)
    pairs = zip(run.columns[name].tolist(), run.present[name].tolist(), strict=True)
    return [value if has else None for value, has in pairs]


def _is_vector(runs: Mapping[str, RunData], name: str) -> bool:
    return any(run.columns[name].ndim > 1 for run in runs.values() if name in run)
