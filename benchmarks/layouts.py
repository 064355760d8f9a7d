"""Metrics that come and go: each row has other names, in two dtypes, as of tasks that have ended.

python -m benchmarks.layouts
"""

import argparse
import contextlib
import random
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from jax import numpy as jnp

from benchmarks import _users
from benchmarks._result import Result, emit, over_rounds, progress

METRICS, KNOWN = 200, 400
USERS = ("Logger, of 64 arrays", "bare json line", "tensorboardX add_scalar", "wandb.log offline")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500)
    args = parser.parse_args()
    case = {"loop": "python", "metrics": METRICS, "layouts": args.rows}
    kinds = (jnp.float32, jnp.int32)
    values = {f"m{i}": jax.device_put(np.asarray(i, kinds[i % 2])) for i in range(KNOWN)}
    jax.block_until_ready(values)
    compiled = 0

    def count(event: str, duration_secs: float, **_: object) -> None:
        nonlocal compiled
        compiled += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(count)
    for user in USERS:
        choose, calls, before = random.Random(0), [], compiled
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            log = stack.enter_context(_users.USERS[user](Path(folder)))
            for step in range(args.rows):
                row = dict(choose.sample(list(values.items()), METRICS))
                begin = time.perf_counter()
                log(row, step)
                calls.append(1e6 * (time.perf_counter() - begin))
        # It is named for the other benchmark, where its rows have 64.
        name = user.removesuffix(", of 64 arrays")
        took = over_rounds(calls)
        emit(Result("layouts", case, name, "training thread", "us a call", **took))
        emit(Result("layouts", case, name, "slowest call", "ms", round(max(calls) / 1000, 1)))
        emit(Result("layouts", case, name, "programs compiled", "", compiled - before))
        progress(f"{name}: {took['median']:.0f} us a call, {compiled - before} programs")


if __name__ == "__main__":
    main()
