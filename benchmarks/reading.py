"""What it takes to read a run: all its rows with `read_run`, and its last row and state."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lerax_dist as ld
from benchmarks._result import Result, emit, over_rounds, progress
from lerax_dist.journal import Event, Liveness, Row, encode, read_ends, state_of

METRICS = 16


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        _write(journal, args.rows)
        size = journal.stat().st_size / 1e6
        case = {"rows": args.rows, "metrics": METRICS, "MB": round(size)}
        ways: dict[str, Callable[[], object]] = {
            "read_run": lambda: ld.read_run(folder),
            "last row and state": lambda: state_of(
                read_ends(journal), Liveness(journal).is_alive()
            ),
            "json.loads of each line": lambda: _parse(journal, json.loads),
            "orjson.loads of each line": lambda: _parse(journal, _orjson()),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.rounds + 1):
            for name, read in ways.items():
                begin = time.perf_counter()
                read()
                took[name].append(1000 * (time.perf_counter() - begin))
        for name, times in took.items():
            # The first round only warms up.
            found = over_rounds(times[1:])
            emit(Result("reading", case, name, "takes", "ms", **found))
            progress(f"{name}, {size:.0f} MB: {found['median']:.1f} ms")


def _write(journal: Path, rows: int) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(rows, METRICS)).round(5)
    names = tuple(f"train/m{number}" for number in range(METRICS))
    with journal.open("wb") as file:
        file.write(encode(Event(0.0, "open", {"name": "run", "incarnation": 1}), 0))
        for number, row in enumerate(values, 1):
            file.write(encode(Row(1e9 + number, 64 * number, number, names, row), number))
        file.write(encode(Event(2e9, "close", {"state": "finished", "failures": []}), rows + 1))


def _parse(journal: Path, loads: Callable[[bytes], object]) -> None:
    with journal.open("rb") as lines:
        for line in lines:
            loads(line)


def _orjson() -> Callable[[bytes], object]:
    import orjson

    return orjson.loads


if __name__ == "__main__":
    main()
