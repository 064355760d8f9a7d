"""A scan inside `jit` through `jax.debug.callback`, one a backend, as lerax logs; and as we do."""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array

import lerax_dist as ld
from benchmarks import _programs
from benchmarks._result import Result, emit, progress
from benchmarks._rounds import added, interleaved, share
from benchmarks._work import busy, calibrate

METRICS, STEP_MS, LENGTH = 64, 10, 30
NONE = "no logging"
LERAX = "jax.debug.callback a backend (lerax's way)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    devices = jax.device_count()
    case = {"loop": "scan", "devices": devices, "step_ms": STEP_MS, "metrics": METRICS}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        from tensorboardX import SummaryWriter

        writer = stack.enter_context(SummaryWriter(folder))
        programs = {NONE: _programs.scan(None, LENGTH, METRICS), LERAX: _ordered(writer)}
        for rows in (1, 10):
            backend = ld.TensorBoardBackend(Path(folder) / str(rows))
            logger = ld.LoggingCallback(backend, "run", rows_per_transfer=rows)
            stack.enter_context(logger)
            name = f"LoggingCallback, {rows} a transfer"
            programs[name] = _programs.scan(logger, LENGTH, METRICS)
        runs = {}
        for name, program in programs.items():
            run = _runner(program)
            try:
                run(1)
                runs[name] = run
            except ValueError as error:
                why = str(error).split(".")[0]
                emit(Result("in the step", case, name, "does not run", "", why))
        repeats = calibrate(runs[NONE], STEP_MS / 1000)
        seconds = interleaved({n: lambda n=n: runs[n](repeats) for n in runs}, args.rounds)
    for name in list(runs)[1:]:
        found = added(seconds, name, NONE)
        emit(Result("in the step", case, name, "added", "ms", **found))
        emit(Result("in the step", case, name, "share of step", "%", **share(seconds, name, NONE)))
        progress(f"{devices} devices, {name}: {found['median']:.2f} ms an iteration")


def _ordered(writer: Any) -> Callable[..., Array]:
    def write(scalars: dict[str, Array], step: Array) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, float(value), int(step))

    def train(x: Array, repeats: Array) -> Array:
        def iteration(carry: Any, _: None) -> tuple[Any, None]:
            x, count = carry
            x = busy(x, repeats)
            values = _programs.metrics_of(x, METRICS)
            x = x + 0 * sum(values.values())
            jax.debug.callback(write, values, count, ordered=True)
            return (x, count + 1), None

        (x, _), _ = lax.scan(iteration, (x, jnp.zeros((), jnp.int32)), None, LENGTH)
        return x

    return train


def _runner(train: Callable[..., Array]) -> Callable[[int], float]:
    program, x = _programs.compiled("scan", train)

    def run(repeats: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(program(x, np.int32(repeats)))
        return (time.perf_counter() - begin) / LENGTH

    return run


if __name__ == "__main__":
    main()
