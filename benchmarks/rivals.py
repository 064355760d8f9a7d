"""A Python loop on one device through what users have, at the pace of use.

The step is done before the call is timed, so that no logger is charged for waiting for it.
"""

import argparse
import contextlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

import lerax_dist as ld
from benchmarks import _programs, _users
from benchmarks._result import Result, emit, over_rounds, progress
from benchmarks._rounds import interleaved, share
from benchmarks._work import calibrate

NONE, AGAIN = "no logging", "no logging, again"
METRICS, STEP_MS, LENGTH = 64, 10, 40


class _Loop:
    """Runs one variant, and adds up what it costs."""

    def __init__(self, log: _users.Log | None, *, as_reduced: bool = False) -> None:
        # The same step for all: its metrics are computed whether they are logged or not. All but
        # one get a dict of scalars, which is what they take.
        give = ld.reduce if as_reduced else lambda values: dict(ld.reduce(values))
        self._step, self._x = _programs.step(METRICS, give)
        self._log = log
        self._count = 0
        self.calls: list[float] = []
        self.cpu: list[float] = []

    def __call__(self, repeats: int) -> float:
        x, calls = self._x, []
        cpu = _cpu_seconds()
        begin = time.perf_counter()
        for _ in range(LENGTH):
            x, values = self._step(x, np.int32(repeats))
            jax.block_until_ready((x, values))
            start = time.perf_counter()
            if self._log is not None:
                self._log(values, self._count)
            calls.append(time.perf_counter() - start)
            self._count += 1
        took = time.perf_counter() - begin
        self.cpu.append((_cpu_seconds() - cpu) / LENGTH)
        self.calls += calls
        return took / LENGTH

    @property
    def rows(self) -> int:
        return self._count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--users", nargs="+", default=list(_users.USERS))
    args = parser.parse_args()
    case = {"loop": "python", "devices": 1, "step_ms": STEP_MS, "metrics": METRICS}
    loops = {NONE: _Loop(None), AGAIN: _Loop(None)}
    folders: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as base:
        with contextlib.ExitStack() as stack:
            for name in args.users:
                why = _users.absent(name)
                if why is not None:
                    emit(Result("rivals", case, name, "does not run", "", why))
                    continue
                folders[name] = Path(base) / str(len(folders))
                folders[name].mkdir()
                log = stack.enter_context(_users.USERS[name](folders[name]))
                loops[name] = _Loop(log, as_reduced=name == _users.LERAX_DIST)
            repeats = calibrate(loops[NONE], STEP_MS / 1000)
            for loop in loops.values():
                loop(repeats)
                loop.calls.clear()
                loop.cpu.clear()
            seconds = interleaved({n: lambda n=n: loops[n](repeats) for n in loops}, args.rounds)
        _report(case, loops, seconds, folders)


def _report(case: Any, loops: dict[str, _Loop], seconds: Any, folders: dict[str, Path]) -> None:
    own = over_rounds(loops[_users.LERAX_DIST].calls)["median"]
    for name, loop in loops.items():
        if name == NONE:
            continue
        emit(Result("rivals", case, name, "share of step", "%", **share(seconds, name, NONE)))
        if name == AGAIN:
            continue
        calls = over_rounds([1e6 * took for took in loop.calls])
        emit(Result("rivals", case, name, "training thread", "us a call", **calls))
        ratio = calls["median"] / (1e6 * own)
        emit(Result("rivals", case, name, "training thread", "x lerax_dist", round(ratio, 1)))
        pairs = zip(loop.cpu, loops[NONE].cpu, strict=True)
        cpu = over_rounds([1000 * (mine - base) for mine, base in pairs])
        emit(Result("rivals", case, name, "CPU of the process", "ms a row", **cpu))
        size = sum(file.stat().st_size for file in folders[name].rglob("*") if file.is_file())
        emit(Result("rivals", case, name, "on the disk", "bytes a row", round(size / loop.rows)))
        progress(f"{name}: {calls['median']:.0f} us a call, {ratio:.1f}x lerax_dist")


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it has started and that still run."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
