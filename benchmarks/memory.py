"""Memory of a process that logs a million rows, between the ten-thousandth and the last."""

import argparse
import tempfile

import psutil

import lerax_dist as ld
from benchmarks._result import Result, emit, progress

# Few metrics: it is the number of rows that counts, and a million of them take a minute so.
FIRST, METRICS = 10_000, 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    process = psutil.Process()
    seen: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ld.Logger(ld.TensorBoardBackend(folder), "run") as logger:
            for step in range(args.rows):
                logger.log({f"metric_{i}": step / (i + 1) for i in range(METRICS)}, step)
                if step % FIRST == FIRST - 1:
                    logger.flush(timeout=600.0)
                    seen[step + 1] = process.memory_info().rss
    growth = (max(seen.values()) - seen[FIRST]) / 2**20
    case = {"metrics": METRICS, "rows": args.rows}
    emit(Result("memory", case, "Logger", "growth from row 10000", "MiB", round(growth, 2)))
    progress(f"{args.rows} rows: memory grew by {growth:.2f} MiB from row {FIRST}")


if __name__ == "__main__":
    main()
