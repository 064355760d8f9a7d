"""Measures everything, one process after the other, and writes table and plots.

python -m benchmarks            # all of it, half an hour on two cores
python -m benchmarks --quick    # a smoke run
python -m benchmarks --only rivals writers
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import _plan
from benchmarks._plots import plot
from benchmarks._result import Result, collect, progress
from benchmarks._table import table

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="one small case of each kind")
    parser.add_argument("--grid", action="store_true", help="all steps with all metrics")
    parser.add_argument("--only", nargs="+", help="modules to run, e.g. loops rivals")
    parser.add_argument("--gpu", action="store_true", help="also on the GPU of this machine")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    plan = (
        _plan.quick()
        if args.quick
        else _plan.full(args.gpu or Path("/dev/nvidia0").exists(), args.grid)
    )
    plan = [one for one in plan if args.only is None or one.module in args.only]
    results: list[Result] = []
    failed = 0
    begin = time.monotonic()
    for number, one in enumerate(plan, 1):
        progress(f"[{number}/{len(plan)}, {time.monotonic() - begin:.0f} s] {one.name}")
        found, code = _run(one)
        results += found
        if code != 0:
            failed += 1
            why = f"ended with status {code}"
            results.append(Result(one.module, {}, one.name, "does not run", "", why))
    args.out.mkdir(parents=True, exist_ok=True)
    machine = _machine() | {"took": f"{time.monotonic() - begin:.0f} s"}
    (args.out / "results.md").write_text(table(results, machine))
    raw = {"machine": machine, "results": [asdict(result) for result in results]}
    (args.out / "results.json").write_text(json.dumps(raw, indent=1) + "\n")
    plot(results, args.out)
    progress(f"{len(results)} results in {args.out / 'results.md'}, {failed} measurements failed")
    return 1 if failed else 0


def _run(one: _plan.Measurement) -> tuple[list[Result], int]:
    process = subprocess.Popen(
        one.command(), env=one.environment(), stdout=subprocess.PIPE, text=True, errors="replace"
    )
    # Ends what hangs; the pipe then closes, and so does the loop below.
    watchdog = threading.Timer(one.timeout, process.terminate)
    watchdog.start()
    assert process.stdout is not None
    results = [result for line in process.stdout if (result := collect(line)) is not None]
    code = process.wait()
    watchdog.cancel()
    return results, code


def _machine() -> dict[str, Any]:
    packages = ("jax", "equinox", "numpy", "tensorboardX", "wandb")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "load when it ended": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


if __name__ == "__main__":
    sys.exit(main())
