"""What each backend sustains: rows a second and bytes a row, back to back, without a device."""

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lerax_dist as ld
from benchmarks._result import Result, emit, over_rounds, progress
from lerax_dist._failures import Failures
from lerax_dist.journal import Journal, Row

METRICS = 64
# Rows that come in a wake of the writer, with an iteration every 10 ms.
TOGETHER = 20
TENSORBOARD, TENSORBOARDX = "TensorBoardBackend", "tensorboardX add_scalar"
Write = Callable[[dict[str, Any], int], object]
Make = Callable[[Path], tuple[Write, Callable[[], object]]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-wandb", action="store_true")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    values = generator.normal(size=(args.rows, METRICS)).astype(np.float32).astype(np.float64)
    rows = [{f"train/metric_{i}": v for i, v in enumerate(row)} for row in values]
    case = {"metrics": METRICS}
    makers: dict[str, Make] = {
        TENSORBOARD: _tensorboard,
        f"{TENSORBOARD}, {TOGETHER} rows a call": _tensorboard_rows,
        TENSORBOARDX: _tensorboardx,
        "journal": _journal,
        "JSONLBackend": _jsonl,
    }
    if not args.without_wandb:
        makers["WandbBackend offline"] = _wandb
    rates: dict[str, list[float]] = {name: [] for name in makers}
    sizes: dict[str, float] = {}
    for number in range(args.rounds):
        turn = number % len(makers)
        for name in [*makers][turn:] + [*makers][:turn]:
            # What takes ten milliseconds a row gets few of them.
            some = rows[: max(args.rows // 50, 5)] if name == TENSORBOARDX else rows
            with tempfile.TemporaryDirectory() as folder:
                rates[name].append(_rate(makers[name], Path(folder), some))
                files = [file for file in Path(folder).rglob("*") if file.is_file()]
                sizes[name] = sum(file.stat().st_size for file in files) / len(some)
    base = over_rounds(rates[TENSORBOARDX])["median"]
    for name, found in rates.items():
        rate = over_rounds(found)
        emit(Result("writers", case, name, "sustained", "rows/s", **rate))
        emit(
            Result(
                "writers", case, name, "sustained", "x add_scalar", round(rate["median"] / base, 1)
            )
        )
        emit(Result("writers", case, name, "on the disk", "bytes a row", round(sizes[name])))
        progress(f"{name}: {rate['median']:.0f} rows/s")


def _rate(
    make: Callable[[Path], tuple[Write, Callable[[], object]]], folder: Path, rows: Any
) -> float:
    write, close = make(folder)
    # Import, open and whatever else happens once.
    write(rows[0], 1000)
    begin = time.perf_counter()
    for step, row in enumerate(rows, 1001):
        write(row, step)
    close()
    return len(rows) / (time.perf_counter() - begin)


def _opened(backend: ld.AbstractLoggingBackend) -> tuple[Write, Callable[[], object]]:
    backend.open("run")
    return backend.log_scalars, backend.close


def _tensorboard(folder: Path) -> tuple[Write, Callable[[], object]]:
    return _opened(ld.TensorBoardBackend(folder))


def _tensorboard_rows(folder: Path) -> tuple[Write, Callable[[], object]]:
    backend = ld.TensorBoardBackend(folder)
    backend.open("run")
    rows: list[dict[str, Any]] = []
    steps: list[int] = []

    def hand_on() -> None:
        if rows:
            values = np.array([list(row.values()) for row in rows])
            backend.log_rows(tuple(rows[0]), values, steps, [0.0] * len(rows))
        rows.clear()
        steps.clear()

    def write(row: dict[str, Any], step: int) -> None:
        rows.append(row)
        steps.append(step)
        if len(rows) == TOGETHER:
            hand_on()

    def close() -> None:
        hand_on()
        backend.close()

    return write, close


def _jsonl(folder: Path) -> tuple[Write, Callable[[], object]]:
    return _opened(ld.JSONLBackend(folder))


def _wandb(folder: Path) -> tuple[Write, Callable[[], object]]:
    return _opened(ld.WandbBackend("benchmark", mode="offline", dir=str(folder)))


def _journal(folder: Path) -> tuple[Write, Callable[[], object]]:
    journal = Journal(folder / "journal.jsonl", Failures())
    return lambda row, step: journal.append([Row.of(0.0, step, None, row)]), journal.close


def _tensorboardx(folder: Path) -> tuple[Write, Callable[[], object]]:
    writer = importlib.import_module("tensorboardX").SummaryWriter(str(folder))

    def write(row: dict[str, Any], step: int) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, step)

    return write, writer.close


if __name__ == "__main__":
    main()
