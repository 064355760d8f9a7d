"""One number of the table, and the way it takes from the process that measures it."""

import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

_TAG = "RESULT "


@final
@dataclass(frozen=True)
class Result:
    """A median over rounds, with the quartiles around it.

    Attributes:
        suite: what was measured.
        case: under which circumstances: name to value.
        variant: what logged.
        quantity: what the number is.
        unit: its unit; empty for a count or a word.
        median: the number; a word where something does not run.
        low: lower quartile.
        high: upper quartile.
    """

    suite: str
    case: dict[str, Any]
    variant: str
    quantity: str
    unit: str
    median: Any
    low: float | None = None
    high: float | None = None


def over_rounds(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, as arguments of a `Result`."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def emit(result: Result) -> None:
    """Hand a result to the process that collects them."""
    # One write: under `mpirun` the output of all processes comes mixed.
    sys.stdout.flush()
    os.write(1, f"\n{_TAG}{json.dumps(asdict(result))}\n".encode())


def collect(line: str) -> Result | None:
    """The result in a line of output, if there is one."""
    return Result(**json.loads(line[len(_TAG) :])) if line.startswith(_TAG) else None


def progress(text: str) -> None:
    """A line on what is going on."""
    print(text, file=sys.stderr, flush=True)
