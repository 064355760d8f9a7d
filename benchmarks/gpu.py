"""One prepared run on a machine with a GPU, in under 6 minutes.

First whether the rows are right: those of a known training are read back from the journal and
compared with NumPy. Then `loops`, `inside` and `rivals` in short, and a profile of logged
iterations: the gaps between kernels, and the time in the callback.

    python -m benchmarks.gpu  # `--platform cpu`: to see that it runs
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

import lerax_dist as ld
from benchmarks import _programs
from benchmarks._plan import Measurement
from benchmarks._result import Result, collect, progress
from benchmarks._table import table

# Iterations, and values on each device.
LENGTH, VALUES = 30, 1000
# Seconds for each benchmark that is run in short, and for all that is done here.
_TIMEOUT, _ALL = 80.0, 340.0
_SHORT = (
    ("loops", "--forms", "scan", "--steps-ms", "10", "--rounds", "1"),
    ("inside", "--rounds", "3"),
    ("rivals", "--rounds", "3"),
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--platform", default="cuda", help="as JAX_PLATFORMS; cpu for a trial")
    args = parser.parse_args()
    begin = time.monotonic()
    # The benchmarks run beside this process, which would take most of the memory.
    os.environ |= {"JAX_PLATFORMS": args.platform, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    jax.config.update("jax_platforms", args.platform)
    results = [*_correctness("scan"), *_correctness("shard_map"), *_profiles()]
    for module, *options in _SHORT:
        left = min(_TIMEOUT, _ALL - (time.monotonic() - begin))
        progress(f"{module}, at most {left:.0f} s more")
        results += _short(Measurement(module, tuple(options), timeout=max(left, 1.0)))
    machine = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{os.cpu_count()} cores",
        "jax": jax.__version__,
        "took": f"{time.monotonic() - begin:.0f} s",
    }
    print(table(results, machine))
    return int(any(r.median in ("wrong", "does not run", "cut off") for r in results))


def _short(one: Measurement) -> list[Result]:
    """A benchmark in a process of its own; with what it has found until its time was up."""
    try:
        ran = subprocess.run(
            one.command(), env=one.environment(), stdout=subprocess.PIPE, timeout=one.timeout
        )
        output, why = ran.stdout, f"status {ran.returncode}" if ran.returncode else ""
    except subprocess.TimeoutExpired as late:
        output, why = late.stdout or b"", "cut off"
    lines = output.decode(errors="replace").splitlines()
    found = [result for line in lines if (result := collect(line)) is not None]
    return [*found, *([Result(one.module, {}, one.name, "ended", "", why)] if why else [])]


def _correctness(form: str) -> list[Result]:
    """The rows of a known training, from the journal, against NumPy."""
    mesh, devices = _programs.mesh(), jax.device_count()
    host = np.random.default_rng(0).normal(size=(devices, VALUES)).astype(np.float32)
    x = jax.device_put(host, NamedSharding(mesh, P("d")))
    with tempfile.TemporaryDirectory() as folder:
        with ld.LoggingCallback(ld.NoOpBackend(), "run", log_dir=folder) as logger:
            train = _known(logger)
            if form == "shard_map":
                train = jax.shard_map(
                    train, mesh=mesh, in_specs=P("d"), out_specs=P(), check_vma=False
                )
            jax.block_until_ready(jax.jit(train)(x))
        run = ld.read_run(Path(folder) / "run")
    environments = _programs.ENVIRONMENTS * (devices if form == "shard_map" else 1)
    right, worst = np.array_equal(run.steps, environments * np.arange(1, LENGTH + 1)), 0.0
    for name, expected in _expected(host.astype(np.float64)).items():
        steps, values = run[name]
        right = right and len(steps) == LENGTH
        if right:
            worst = max(worst, float(np.max(abs(values - expected) / (1 + abs(expected)))))
    case = {"program": form, "devices": devices}
    name = f"LoggingCallback, {LENGTH} rows"
    answer = "equal" if right and worst < 1e-5 else "wrong"
    return [
        Result("correctness", case, name, "journal and NumPy", "", answer),
        Result("correctness", case, name, "largest error", "of 1 + value", f"{worst:.1g}"),
    ]


def _known(logger: ld.LoggingCallback) -> Callable[[Array], Array]:
    """A training whose metrics NumPy can compute; see `_expected`."""

    def train(x: Array) -> Array:
        key = jax.random.key(0)

        def iteration(carry: Any, _: None) -> tuple[Any, None]:
            state, count = carry
            states = _programs.step_states(x)
            states = eqx.tree_at(lambda s: s.step, states, states.step + count + 1)
            log = {
                "mean": ld.Mean.of(x * count),
                "where": ld.Mean.of(x, where=x > 0.05 * count),
                "largest": ld.Max(x.max() * (1 + count)),
                "plain": x.mean() + count,
            }
            context = ld.IterationContext(state, states, None, None, count + 1, None, log)
            return (logger.on_iteration(context, key=key), count + 1), None

        first = (logger.reset(ld.ResetContext(), key=key), jnp.zeros((), jnp.int32))
        (state, count), _ = lax.scan(iteration, first, None, LENGTH)
        logger.flush_state(state)
        return count

    return train


def _expected(x: np.ndarray) -> dict[str, np.ndarray]:
    counts = np.arange(LENGTH)
    above = [x[x > np.float32(0.05) * np.float32(count)] for count in counts]
    return {
        "train/mean": x.mean() * counts,
        "train/where": np.array([each.mean() for each in above]),
        "train/largest": x.max() * (1 + counts),
        "train/plain": x.mean() + counts,
    }


def _profiles() -> list[Result]:
    """What runs in an iteration of a scan with 64 metrics, with and without a logger."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        with ld.LoggingCallback(ld.NoOpBackend(), "run", log_dir=folder) as logger:
            for name, logs in (("no logging", None), ("LoggingCallback", logger)):
                program, x = _programs.compiled("scan", _programs.scan(logs, LENGTH, 64))
                repeats = np.int32(20)
                jax.block_until_ready(program(x, repeats))
                with jax.profiler.trace(f"{folder}/{name}"):
                    jax.block_until_ready(program(x, repeats))
                (path,) = Path(folder, name).rglob("*.trace.json.gz")
                events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
                results += _profile(name, events)
    return results


def _profile(name: str, events: list[dict[str, Any]]) -> list[Result]:
    """Kernels of the first device, or on a CPU operations of the program, an iteration."""
    names = [e for e in events if e.get("ph") == "M" and e["name"] == "thread_name"]
    streams = {(e["pid"], e["tid"]) for e in names if e["args"]["name"].startswith("Stream")}
    timed = [e for e in events if e.get("ph") == "X"]
    first = min((pid for pid, _ in streams), default=None)
    kernels = [e for e in timed if e["pid"] == first and (e["pid"], e["tid"]) in streams]
    own = [e for e in timed if "hlo_op" in e.get("args", {})]
    ran = kernels or own  # a CPU has no streams
    spans = sorted((e["ts"], e["ts"] + e.get("dur", 0.0)) for e in ran)
    busy, gaps, end = 0.0, [], spans[0][0]
    for start, stop in spans:
        if start > end:
            gaps.append(start - end)
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    calls = [e.get("dur", 0.0) for e in own if "callback" in e["name"]]
    case = {"program": f"scan of {LENGTH}, 64 metrics"}
    found = [
        ("kernels" if kernels else "operations", "", len(spans) / LENGTH),
        ("busy", "us", busy / LENGTH),
        ("gaps", "", len(gaps) / LENGTH),
        ("idle in gaps", "us", sum(gaps) / LENGTH),
        ("callbacks", "", len(calls) / LENGTH),
        ("in a callback", "us", sum(calls) / max(len(calls), 1)),
    ]
    return [Result("profile, an iteration", case, name, what, unit, n) for what, unit, n in found]


if __name__ == "__main__":
    sys.exit(main())
