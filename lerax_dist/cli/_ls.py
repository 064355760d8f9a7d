"""`lerax-dist ls`: the runs in a folder."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lerax_dist.cli._ends import read_ends
from lerax_dist.cli._print import print_table
from lerax_dist.cli._reader import JOURNAL
from lerax_dist.cli._runs import HEADS, Run, as_object, as_row, describe


def list_runs(log_dir: str, *, as_json: bool) -> int:
    """Print the runs in a folder, those with the newest row last.

    Args:
        log_dir: the folder.
        as_json: whether to print a JSON array.

    Returns:
        Exit status.
    """
    base = Path(log_dir)
    if not base.is_dir():
        print(f"lerax-dist ls: {log_dir} is not a folder. Give that of the runs.", file=sys.stderr)
        return 1
    runs = sorted(_runs(base), key=lambda run: (run.time or 0.0, run.name))
    if as_json:
        print(json.dumps([as_object(run) for run in runs]))
    elif runs:
        print_table(HEADS, [as_row(run) for run in runs])
    else:
        print(f"lerax-dist ls: no run in {log_dir} (no {JOURNAL})", file=sys.stderr)
    return 0


def _runs(base: Path) -> Iterator[Run]:
    for folder, _, files in os.walk(base):
        if JOURNAL not in files:
            continue
        name = str(Path(folder).relative_to(base))
        name = base.resolve().name if name == "." else name
        try:
            ends = read_ends(Path(folder) / JOURNAL)
        except OSError as error:
            yield Run(name, "unreadable")
            print(f"lerax-dist ls: {folder}: {error.strerror}", file=sys.stderr)
            continue
        yield describe(name, ends, time.time())
