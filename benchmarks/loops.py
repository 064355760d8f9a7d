"""The cost of a logged iteration as a share of the step, in three kinds of loop.

XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m benchmarks.loops --metrics 64
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lerax_dist as ld
from benchmarks import _programs
from benchmarks._result import Result, emit, over_rounds, progress
from benchmarks._rounds import added, interleaved, share
from benchmarks._work import calibrate

# Milliseconds of a step to iterations in a run.
RUNS = {1: 600, 10: 100, 100: 10}
NONE, AGAIN = "no logging", "no logging, again"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", type=int, nargs="+", default=[64])
    parser.add_argument("--steps-ms", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--forms", nargs="+", default=["scan", "shard_map", "python"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--distributed", action="store_true")
    args = parser.parse_args()
    group = ld.initialize() if args.distributed else ld.SoloGroup()
    for form in args.forms:
        for metrics in args.metrics:
            for step_ms in args.steps_ms:
                rounds = args.rounds if step_ms < 100 else min(args.rounds, 3)
                with tempfile.TemporaryDirectory() as folder:
                    _cell(form, metrics, step_ms, rounds, group, Path(folder))


def _cell(
    form: str, metrics: int, step_ms: int, rounds: int, group: ld.ProcessGroup, folder: Path
) -> None:
    """Measure one cell of the table, and report it."""
    length = RUNS[step_ms]
    with contextlib.ExitStack() as stack:
        variants, repeats = _variants(form, metrics, length, step_ms, group, folder, stack)
        seconds = interleaved({n: lambda n=n: variants[n](repeats) for n in variants}, rounds)
    if not group.is_writer:
        return
    case = {
        "loop": form,
        "devices": jax.device_count(),
        "processes": group.process_count,
        "step_ms": step_ms,
        "metrics": metrics,
        "platform": jax.default_backend(),
    }
    base = over_rounds([1000 * took for took in seconds[NONE]])
    emit(Result("loops", case, NONE, "iteration", "ms", **base))
    for name in seconds:
        if name != NONE:
            emit(Result("loops", case, name, "added", "ms", **added(seconds, name, NONE)))
            emit(Result("loops", case, name, "share of step", "%", **share(seconds, name, NONE)))
    progress(f"{case}: { ({n: round(share(seconds, n, NONE)['median'], 1) for n in seconds}) } %")


def _variants(
    form: str,
    metrics: int,
    length: int,
    step_ms: int,
    group: ld.ProcessGroup,
    folder: Path,
    stack: contextlib.ExitStack,
) -> tuple[dict[str, Callable[[int], float]], int]:
    """What runs each variant for so many repeats, and how many repeats make the step."""

    def backend(name: str) -> ld.TensorBoardBackend:
        return ld.TensorBoardBackend(folder / name)

    if form == "python":
        plain = _python_loop(None, metrics, length)
        logger = stack.enter_context(ld.Logger(backend("python"), "run", group=group))
        variants = {NONE: plain, AGAIN: plain, "Logger": _python_loop(logger, metrics, length)}
    else:
        plain = _scan_loop(form, None, metrics, length)
        variants = {NONE: plain, AGAIN: plain}
        for rows in (1, 10):
            made = ld.LoggingCallback(
                backend(f"{rows}"), "run", rows_per_transfer=rows, group=group
            )
            callback = stack.enter_context(made)
            variants[f"LoggingCallback, {rows} a transfer"] = _scan_loop(
                form, callback, metrics, length
            )
    repeats = calibrate(plain, step_ms / 1000) if group.is_writer else 0
    repeats = group.broadcast(repeats, timeout=60.0, what="the length of a step")
    return variants, repeats


def _scan_loop(
    form: str, logger: ld.LoggingCallback | None, metrics: int, length: int
) -> Callable[[int], float]:
    program, x = _programs.compiled(form, _programs.scan(logger, length, metrics))

    def run(repeats: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(program(x, np.int32(repeats)))
        took = time.perf_counter() - begin
        _finish(logger)
        return took / length

    return run


def _finish(logger: ld.Logger | ld.LoggingCallback | None) -> None:
    """Write what is left, so that the next variant does not pay for it."""
    if logger is not None:
        logger.flush()


def _python_loop(logger: ld.Logger | None, metrics: int, length: int) -> Callable[[int], float]:
    step, start = _programs.step(metrics, ld.reduce if logger is not None else lambda values: {})

    def run(repeats: int) -> float:
        x: Any = start
        before = start
        begin = time.perf_counter()
        for number in range(length):
            before, (x, values) = x, step(x, np.int32(repeats))
            if logger is not None:
                logger.log(values, number)
            # One step may be under way while the next is started, as in most loops.
            jax.block_until_ready(before)
        jax.block_until_ready(x)
        took = time.perf_counter() - begin
        _finish(logger)
        return took / length

    return run


if __name__ == "__main__":
    main()
