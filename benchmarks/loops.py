"""The cost of a logged iteration as a share of the step, in three kinds of loop.

XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m benchmarks.loops --metrics 64
"""

import argparse
import contextlib
import tempfile
import threading
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

# Milliseconds of a step to iterations of the program. It runs once before the clock starts, so that
# rows are written at the end of what is timed as at its start, and then `TIMED` times.
LENGTHS = {1: 300, 10: 30, 100: 10}
TIMED = 2
# More rounds for the case that the targets speak of.
TARGET, MORE = (10, 64), 4
NONE, AGAIN = "no logging", "no logging, again"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", type=int, nargs="+", default=[64])
    parser.add_argument("--steps-ms", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--forms", nargs="+", default=["scan", "shard_map", "python"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--distributed", action="store_true")
    args = parser.parse_args()
    group = ld.initialize() if args.distributed else ld.SoloGroup()
    for form in args.forms:
        for metrics in args.metrics:
            for step_ms in args.steps_ms:
                rounds = args.rounds if step_ms < 100 else min(args.rounds, 3)
                if (step_ms, metrics) == TARGET:
                    rounds *= MORE
                with tempfile.TemporaryDirectory() as folder:
                    _cell(form, metrics, step_ms, rounds, group, Path(folder))


def _cell(
    form: str, metrics: int, step_ms: int, rounds: int, group: ld.ProcessGroup, folder: Path
) -> None:
    """Measure one cell of the table, and report it."""
    length = LENGTHS[step_ms]
    with contextlib.ExitStack() as stack:
        variants, repeats = _variants(form, metrics, length, step_ms, group, folder, stack)
        loops = {name: _Timed(run, length) for name, run in variants.items()}
        seconds = interleaved({n: lambda n=n: loops[n](repeats) for n in loops}, rounds)
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
        if name not in (NONE, AGAIN):
            cpu = over_rounds(loops[name].threads)
            emit(Result("loops", case, name, "CPU of the logger's threads", "us a row", **cpu))
    progress(f"{case}: { ({n: round(share(seconds, n, NONE)['median'], 1) for n in seconds}) } %")


class _Timed:
    """Runs a variant, and says how long an iteration took.

    Attributes:
        threads: microseconds of CPU time a row of all threads of loggers, for each time.
    """

    def __init__(self, run: Callable[[int], Callable[[], None]], length: int) -> None:
        self._run = run
        self._length = length
        self.threads: list[float] = []

    def __call__(self, repeats: int) -> float:
        cpu = _threads_seconds()
        finish = self._run(repeats)
        begin = time.perf_counter()
        for _ in range(TIMED):
            self._run(repeats)
        took = time.perf_counter() - begin
        # Write what is left, so that the next variant does not pay for it.
        finish()
        self.threads.append(1e6 * (_threads_seconds() - cpu) / (self._length * (1 + TIMED)))
        return took / (self._length * TIMED)


def _threads_seconds() -> float:
    """CPU time of the threads of all loggers."""
    clocks = [
        time.pthread_getcpuclockid(thread.ident)
        for thread in threading.enumerate()
        if thread.name.startswith("lerax_dist") and thread.ident is not None
    ]
    return sum(map(time.clock_gettime, clocks))


def _variants(
    form: str,
    metrics: int,
    length: int,
    step_ms: int,
    group: ld.ProcessGroup,
    folder: Path,
    stack: contextlib.ExitStack,
) -> tuple[dict[str, Callable[[int], Callable[[], None]]], int]:
    """Name of each variant to a function that runs it, and the number of repeats of a step.

    The function is called with the repeats, and returns one that writes the rows that remain.
    """

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

    def took(repeats: int) -> float:
        begin = time.perf_counter()
        plain(repeats)
        return (time.perf_counter() - begin) / length

    repeats = calibrate(took, step_ms / 1000) if group.is_writer else 0
    repeats = group.broadcast(repeats, timeout=60.0, what="the length of a step")
    return variants, repeats


def _scan_loop(
    form: str, logger: ld.LoggingCallback | None, metrics: int, length: int
) -> Callable[[int], Callable[[], None]]:
    program, x = _programs.compiled(form, _programs.scan(logger, length, metrics))

    def run(repeats: int) -> Callable[[], None]:
        jax.block_until_ready(program(x, np.int32(repeats)))
        return _flush(logger)

    return run


def _flush(logger: ld.Logger | ld.LoggingCallback | None) -> Callable[[], None]:
    return (lambda: None) if logger is None else logger.flush


def _python_loop(
    logger: ld.Logger | None, metrics: int, length: int
) -> Callable[[int], Callable[[], None]]:
    step, start = _programs.step(metrics, ld.reduce if logger is not None else lambda values: {})

    def run(repeats: int) -> Callable[[], None]:
        x: Any = start
        before = start
        for number in range(length):
            before, (x, values) = x, step(x, np.int32(repeats))
            if logger is not None:
                logger.log(values, number)
            # One step may be under way while the next is started, as in most loops.
            jax.block_until_ready(before)
        jax.block_until_ready(x)
        return _flush(logger)

    return run


if __name__ == "__main__":
    main()
