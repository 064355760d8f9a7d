"""What each of many processes sends, and what process 0 does for them.

Every process runs the package itself: joining, heartbeats, the watch for preemption, text logs, a
`Logger` with `scope="process"`, and the exit. Up to `--real` each is a process of the operating
system. More are simulated: process 0 is as before, and a few processes hold the others, each a
client of JAX's coordination service with threads of its own.

    python -m benchmarks.processes --processes 2 16 64 512
"""

import argparse
import atexit
import multiprocessing
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, final

import jax
from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

import lerax_dist as ld
from benchmarks._result import Result, emit, progress
from lerax_dist import _open
from lerax_dist.cluster import JaxGroup, _jax_group, _store
from lerax_dist.cluster._rendezvous import rendezvous
from lerax_dist.cluster.liveness import _monitor, _shutdown
from lerax_dist.cluster.liveness._heartbeat import choose_timing
from lerax_dist.cluster.liveness._monitor import HeartbeatMonitor
from lerax_dist.cluster.liveness._step import Setup

METRICS = 16
# Processes that hold simulated ones, and how long any phase may take, in seconds.
_HOLDERS = 4
_TIMEOUT = 300.0
_HEARTBEAT_TIMEOUT = 60.0
_PHASES = ("joining", "opening", "idle", "rows", "closing", "leaving")
# Client, index and count of the simulated process that this thread constructs.
_here = threading.local()


@final
class Counted:
    """A client of the coordination service that counts what passes through it.

    Attributes:
        seen: calls by name, and under "bytes" the keys and values in them and in their answers.
    """

    def __init__(self, client: Any, seen: Counter[str]) -> None:
        self._client = client
        self.seen = seen

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def counted(*args: Any) -> Any:
            self.seen[name] += 1
            self.seen["bytes"] += _size(args)
            answer = call(*args)
            self.seen["bytes"] += _size(answer)
            return answer

        return counted


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return sum(map(_size, value)) if isinstance(value, tuple | list) else 0


def connect(address: str, index: int) -> Any:
    """A client of the service at `address`, as `jax.distributed.initialize` makes one."""
    client = _jax.get_distributed_runtime_client(
        *(address, index),
        init_timeout=int(_TIMEOUT),
        use_compression=True,
        heartbeat_timeout=int(_HEARTBEAT_TIMEOUT),
    )
    client.connect()
    return client


def simulate(replace: Callable[[Any, str, Any], None]) -> None:
    """From now on what a thread makes takes itself for the process that `act_as` has set."""
    for module in (_jax_group, _monitor, _shutdown):
        replace(module, "joined_client", lambda: getattr(_here, "client", None))
    for module in (_jax_group, _shutdown):
        replace(module, "joined_place", lambda: _here.place)


def act_as(client: Any, index: int, count: int) -> None:
    """See `simulate`."""
    _here.client, _here.place = client, (index, count)


def monitor_of(index: int, count: int) -> HeartbeatMonitor:
    """The monitor that `initialize` would start in the process that this thread acts as."""
    timing = choose_timing(_HEARTBEAT_TIMEOUT, count)
    return HeartbeatMonitor(Setup(index, count, socket.gethostname(), timing, False))


@final
class Rank:
    """One process, real or simulated, through the phases of a run."""

    def __init__(self, address: str, index: int, count: int, folder: str, is_real: bool) -> None:
        self._address, self._folder = address, folder
        self.index, self.count = index, count
        self._is_real = is_real
        self._client: Any = None

    def joining(self, bare: bool) -> None:
        place = (self.index, self.count)
        if bare or not self._is_real:
            rendezvous(*place, self._address, _TIMEOUT)
        if not self._is_real:
            self._client = connect(self._address, self.index)
        elif bare:
            jax.distributed.initialize(self._address, self.count, self.index)
        else:
            self._group = ld.initialize(self._address, self.count, self.index, timeout=_TIMEOUT)
        if self._is_real or bare:
            return
        act_as(self._client, *place)
        self._group = JaxGroup("simulated")
        monitor = monitor_of(*place)
        monitor.start()
        self._hook = _shutdown.ShutdownHook(monitor, _TIMEOUT)

    def opening(self) -> None:
        options: Any = {"log_dir": self._folder, "scope": "process", "group": self._group}
        options["handle_signals"] = self._is_real
        self.logger = ld.Logger(ld.NoOpBackend(), "run", **options)
        departure = self.logger._run._departure
        if not self._is_real and departure is not None:
            # Only a main thread can handle signals; the rest of it is as on the others.
            departure.watch(lambda: False)

    def row(self, step: int) -> None:
        self.logger.log({f"metric_{i}": float(i) for i in range(METRICS)}, step=step)

    def closing(self) -> None:
        self.logger.close()

    def leaving(self, bare: bool) -> None:
        if self._is_real:
            atexit._run_exitfuncs()
            return
        if not bare:
            act_as(self._client, self.index, self.count)
            self._hook()
        self._client.shutdown()


def _member(pipe: Connection, ranks: Sequence[Rank], is_real: bool) -> None:
    """Hold ranks, and do what arrives in the pipe; answers what was counted until then."""
    seen: Counter[str] = Counter()
    init = _store.Store.__init__
    _store.Store.__init__ = lambda self, client: init(self, Counted(client, seen))
    if not is_real:
        # JAX's devices would wait for those of the processes that are simulated.
        _open.describe_devices = lambda group: {}
    if len(ranks) > 1:
        simulate(setattr)
        # The limits of calls are not measured, and one thread would make them for all ranks.
        _store._caller = SimpleNamespace(call=lambda function, timeout: function())  # pyright: ignore
        _store.service_state().coordinator_address = ranks[0]._address
    with ThreadPoolExecutor(len(ranks)) as pool:
        while (command := pipe.recv()) is not None:
            begin = time.perf_counter()
            _act(pool, ranks, *command)
            pipe.send((time.perf_counter() - begin, time.process_time(), dict(seen)))


def _act(pool: ThreadPoolExecutor, ranks: Sequence[Rank], phase: str, *args: Any) -> None:
    """What all ranks do in a phase."""
    begin = time.perf_counter()
    if phase == "rows":
        seconds, rate = args
        for step in range(int(seconds * rate)):
            for rank in ranks:
                rank.row(step)
            time.sleep(max(0.0, begin + (step + 1) / rate - time.perf_counter()))
    elif phase == "idle":
        time.sleep(args[0])
    elif len(ranks) == 1:
        getattr(ranks[0], phase)(*args)
    else:
        list(pool.map(lambda rank: getattr(rank, phase)(*args), ranks))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 16, 64, 512])
    parser.add_argument("--real", type=int, default=64, help="up to this many are real")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a steady phase")
    parser.add_argument("--rate", type=float, default=2.0, help="rows a second")
    parser.add_argument("--bare", action="store_true", help="JAX's own messages only")
    args = parser.parse_args()
    for count in args.processes:
        _measure(count, count <= args.real, args.seconds, args.rate, args.bare)


def _measure(count: int, all_real: bool, seconds: float, rate: float, bare: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "127.0.0.1:{1}".format(*server.getsockname())
    others = range(1, count)
    parts = [[i] for i in others] if all_real else [others[i::_HOLDERS] for i in range(_HOLDERS)]
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes: list[Connection] = []
        members: list[Any] = []
        for part in [[0], *parts]:
            mine, theirs = context.Pipe()
            ranks = [Rank(address, i, count, folder, all_real or i == 0) for i in part]
            members.append(
                context.Process(target=_member, args=(theirs, ranks, all_real), daemon=True)
            )
            members[-1].start()
            theirs.close()
            pipes.append(mine)
        kind = ("real" if all_real else "simulated") + (", JAX alone" if bare else "")
        before = [(0.0, {}) for _ in pipes]
        for phase in ("joining", "idle", "leaving") if bare else _PHASES:
            options: dict[str, tuple[Any, ...]] = {
                **{"joining": (bare,), "leaving": (bare,)},
                **{"idle": (seconds,), "rows": (seconds, rate)},
            }
            for pipe in pipes:
                pipe.send((phase, *options.get(phase, ())))
            answers = [pipe.recv() for pipe in pipes]
            _report({"processes": count, "kind": kind}, phase, before, answers)
            before = [(cpu, seen) for _, cpu, seen in answers]
        for pipe in pipes:
            pipe.send(None)
        for member in members:
            member.join(_TIMEOUT)


def _report(case: dict[str, Any], phase: str, before: Any, answers: Any) -> None:
    """Rates in a steady phase, totals in the others."""
    took = answers[0][0]
    steady = took if phase in ("idle", "rows") else 1.0
    each = [Counter(now[2]) - Counter(old[1]) for now, old in zip(answers, before, strict=True)]
    sizes = [counts.pop("bytes", 0) for counts in each]
    messages = [sum(counts.values()) for counts in each]
    others = case["processes"] - 1
    cpu = answers[0][1] - before[0][0]
    found = [
        ("takes", "s", max(answer[0] for answer in answers)),
        ("messages of process 0", "", messages[0] / steady),
        ("bytes of process 0", "", sizes[0] / steady),
        ("messages of another", "", sum(messages[1:]) / others / steady),
        ("bytes of another", "", sum(sizes[1:]) / others / steady),
        ("CPU of process 0", "% of a core" if steady == took else "", 100 * cpu / took),
        ("CPU of process 0", "s", cpu),
    ]
    for quantity, unit, value in found:
        emit(Result("processes", case, phase, quantity, unit, round(value, 3)))
    shown = ", ".join(f"{quantity} {value:.4g} {unit}".strip() for quantity, unit, value in found)
    calls = {name: round(number / steady, 2) for name, number in each[0].items()}
    progress(f"{case['processes']} {case['kind']}, {phase}: {shown}; process 0: {calls}")


if __name__ == "__main__":
    sys.exit(main())
