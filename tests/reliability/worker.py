"""The training that the faults hit: it logs a counter, and keeps on file what it has sent.

Its argument is a `Plan` as JSON. In the folder `side` each process writes, unbuffered:

- `sent-<attempt>`, of process 0: one record for each row whose `log` has returned (or, in a
  compiled loop, whose step has, callback included);
- `marks-<process>-<attempt>`: what it has done, one word a line, with the time.

A file `do-<process>.json` there is a command: a trouble that the process makes for itself.
"""

import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, final

import numpy as np

import lerax_dist as ld
from lerax_dist.backends._append import Appender
from tests.memory import Memory

# Step, attempt, time by the monotonic clock, and the longest stop so far, in seconds.
SENT = struct.Struct("<qqdd")
# The names of the two metrics, by which each row of each attempt is known.
X, ATTEMPT = "train/x", "train/attempt"


def value_of(step: int) -> float:
    """The value of `X`: exact in float32, as event files keep it."""
    return step * 0.5


@final
@dataclass(frozen=True)
class Plan:
    """What a worker does.

    Attributes:
        log_dir: where the run is.
        side: where it writes what it has sent.
        name: name of the run.
        attempt: number of this start of the run, from 0.
        start: its first step, which continues the run if it is not 0.
        steps: where it ends.
        pause: seconds between two steps.
        loop: `"plain"` or `"compiled"`.
        join: whether JAX joins several processes.
        backends: what it logs to, see `backend_of`.
        more: names of further metrics, whose values are 1.
        ending: `"close"`, `"exit"` (without `close`), `"_exit"`, or `"raise"`.
        heartbeat: JAX's limit, in seconds.
        timeout: that of `close`, in seconds.
    """

    log_dir: str
    side: str
    name: str = "run"
    attempt: int = 0
    start: int = 0
    steps: int = 10**9
    pause: float = 0.004
    loop: str = "plain"
    join: bool = False
    backends: tuple[str, ...] = ("event", "jsonl")
    more: tuple[str, ...] = ()
    ending: str = "close"
    heartbeat: int = 60
    timeout: float = 60.0

    def text(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))


class Late(Memory):
    """Returns late, 100 ms for each row."""

    def log_scalars(self, scalars, step):
        time.sleep(0.1)


class Odd(Memory):
    """Does something with each row."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self._act = act

    def log_scalars(self, scalars, step):
        self._act(step)


def _raise(error: BaseException) -> None:
    raise error


def _be_moody(random: Random) -> None:
    mood = random.random()
    if mood < 0.01:
        raise random.choice([ValueError("no"), OSError("not now"), SystemExit(1)])
    if mood < 0.012:
        time.sleep(random.uniform(0.0, 3.0))


def _for_a_moment(seconds: float) -> Callable[[int], None]:
    until = time.monotonic() + seconds
    return lambda step: None if time.monotonic() > until else _raise(OSError("for a moment"))


def backend_of(kind: str, plan: Plan) -> Any:
    """A backend by what it is or does."""
    match kind:
        case "event":
            return ld.TensorBoardBackend(plan.log_dir)
        case "jsonl":
            return ld.JSONLBackend(plan.log_dir)
        case "elsewhere":
            return ld.JSONLBackend(str(Path(plan.side) / "elsewhere"))
        case "wandb":
            return ld.WandbBackend("reliability", quiet=True)
        case "wandb-fails":
            return _wandb_that_fails()
        case "raises":
            return Odd(lambda step: _raise(ValueError(f"no row, step {step}")))
        case "raises-once":
            return Odd(_for_a_moment(0.5))
        case "hangs":
            return Odd(lambda step: time.sleep(1e6))
        case "late":
            return Late()
        case "quits":
            return Odd(lambda step: _raise(SystemExit(3)))
        case "moody":
            random = Random(plan.attempt)
            return Odd(lambda step: _be_moody(random))
        case "leaks":
            kept: list[bytes] = []
            return Odd(lambda step: kept.append(bytes(100_000)))
    raise ValueError(f"`kind` is {kind!r}, which is no backend here")


def _wandb_that_fails() -> ld.WandbBackend:
    """W&B whose calls fail from the 200th row on: a patch of its `Run.log`."""
    from wandb import Error
    from wandb.sdk.wandb_run import Run

    rows = itertools.count()
    log = Run.log

    def patched(run: Run, *args: Any, **options: Any) -> None:
        if next(rows) >= 200:
            raise Error("HTTP 500 after an hour")
        log(run, *args, **options)

    setattr(Run, "log", patched)  # noqa: B010 (a type checker refuses an assignment)
    return ld.WandbBackend("reliability", quiet=True)


# --- Troubles


@final
class Disk:
    """Stands between the logger and the files of its run: what it writes fails or takes long.

    A patch of `os.write`, `os.fsync` and `Appender.append`, for errors and delays that no file
    system of the machine can be made to have.
    """

    def __init__(self, own: set[int], folder: Path) -> None:
        """
        Args:
            own: descriptors that are not the logger's.
            folder: only what backends append to files below it is troubled.
        """
        self._own = own
        self._folder = folder
        self._until = 0.0
        self._number = 0
        self._delay = 0.0
        self._write, self._sync, self._append = os.write, os.fsync, Appender.append

    def install(self) -> None:
        """Take the place of the functions. Once."""
        write, sync, append = self._write, self._sync, self._append

        def patched_write(descriptor: int, data: Any) -> int:
            if descriptor not in self._own and descriptor > 2:
                self._meet()
            return write(descriptor, data)

        def patched_sync(descriptor: int) -> None:
            self._meet()
            sync(descriptor)

        def patched_append(appender: Appender, data: bytes) -> None:
            if appender.path.is_relative_to(self._folder):
                self._meet()
            append(appender, data)

        os.write, os.fsync = patched_write, patched_sync
        setattr(Appender, "append", patched_append)  # noqa: B010 (a type checker refuses an assignment)

    def trouble(self, seconds: float, number: int = 0, delay: float = 0.0) -> None:
        """Fail with an error, or take longer, for a while."""
        self._number, self._delay = number, delay
        self._until = time.monotonic() + seconds

    def _meet(self) -> None:
        if time.monotonic() < self._until:
            if self._delay:
                time.sleep(self._delay)
            if self._number:
                raise OSError(self._number, os.strerror(self._number))


@final
class Worker:
    """One process of a training."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.process = 0
        self.side = Path(plan.side)
        self.side.mkdir(parents=True, exist_ok=True)
        self._clock = 0.0
        self._stop = plan.steps
        self._marks = self._sent = -1
        self._disk: Disk | None = None

    def run(self) -> None:
        """From the first import to the end."""
        plan = self.plan
        group: ld.ProcessGroup = ld.SoloGroup()
        if plan.join:
            group = ld.initialize(
                timeout=120, heartbeat_timeout_seconds=plan.heartbeat, shutdown_timeout_seconds=60
            )
        self.process = group.process_index
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._marks = os.open(self._file("marks"), flags, 0o644)
        if self.process == 0:
            self._sent = os.open(self._file("sent"), flags, 0o644)
        try:
            self._train(group)
        except BaseException as error:
            self.mark(f"left:{type(error).__name__}")
            raise
        self.mark("left")

    def _file(self, kind: str) -> Path:
        process = "" if kind == "sent" else f"{self.process}-"
        return self.side / f"{kind}-{process}{self.plan.attempt:04}"

    def mark(self, what: str) -> None:
        """Note what happens, at once."""
        os.write(self._marks, f"{what} {time.monotonic()!r} {os.getpid()}\n".encode())

    def _open(self, group: ld.ProcessGroup) -> Any:
        plan = self.plan
        backends = [backend_of(kind, plan) for kind in plan.backends]
        options: dict[str, Any] = {"log_dir": plan.log_dir, "group": group}
        if plan.start:
            options["start_step"] = plan.start
        if plan.loop == "compiled":
            return ld.LoggingCallback(backends, plan.name, **options)
        return ld.Logger(backends, plan.name, **options)

    def _train(self, group: ld.ProcessGroup) -> None:
        plan = self.plan
        self.mark("opening")
        try:
            logger = self._open(group)
        except KeyboardInterrupt:
            self.mark("interrupted:open")
            logger = self._open(group)  # the same call again
        self.mark("open")
        failed = True
        try:
            self._loop(logger, group)
            failed = False
        except KeyboardInterrupt:
            self.mark("interrupted:log")
        finally:
            if plan.ending == "_exit":
                os._exit(0)
            if plan.ending != "exit":
                self._close(logger, failed)
        if plan.ending == "raise":
            raise ValueError("the training is wrong")

    def _close(self, logger: Any, failed: bool) -> None:
        self.mark("closing")
        begin = time.monotonic()
        try:
            logger.close(failed=failed, timeout=self.plan.timeout)
        except KeyboardInterrupt:
            self.mark("interrupted:close")
            logger.close(failed=failed, timeout=self.plan.timeout)
        self.mark(f"closed:{time.monotonic() - begin:.3f}")

    def _loop(self, logger: Any, group: ld.ProcessGroup) -> None:
        plan = self.plan
        compiled = plan.loop == "compiled"
        log = self._compiled(logger) if compiled else self._plain(logger, group)
        # A step waits for the other processes, so its length says nothing about the logger then.
        measured = not compiled or group.process_count == 1
        longest, command = 0.0, self.side / f"do-{self.process}.json"
        for step in range(plan.start, plan.steps):
            if (plan.pause or step % 100 == 0) and command.exists():
                self._obey(command)
            if step >= self._stop:
                break
            took, now = log(step)
            # The first one compiles.
            if measured and step > plan.start:
                longest = max(longest, took)
            if self._sent >= 0:
                os.write(self._sent, SENT.pack(step, plan.attempt, now, longest))
            if step == plan.start:
                self.mark("first")
            if plan.pause:
                time.sleep(plan.pause)
        self.mark("done")

    def _plain(self, logger: Any, group: ld.ProcessGroup) -> Callable[[int], tuple[float, float]]:
        """`Logger.log`; the stop is how long a call of it takes."""
        step_of = self._mean() if group.process_count > 1 else value_of
        more = dict.fromkeys(self.plan.more, 1.0)
        attempt = self.plan.attempt

        def log(step: int) -> tuple[float, float]:
            row = {X: step_of(step), ATTEMPT: attempt, **more}
            begin = time.monotonic()
            logger.log(row, step)
            now = time.monotonic()
            return now - begin, now

        return log

    def _mean(self) -> Callable[[int], Any]:
        """The value of a step, by a mean over the devices of all processes."""
        import jax
        from jax import numpy as jnp

        _, ones = _everywhere()

        @jax.jit
        def mean(ones: Any, value: Any) -> Any:
            return jnp.mean(ones) * value

        return lambda step: jax.block_until_ready(mean(ones, np.float32(value_of(step))))

    def _compiled(self, logger: Any) -> Callable[[int], tuple[float, float]]:
        """Rows from inside a compiled step; the stop is how long a step takes."""
        import jax
        from jax import numpy as jnp

        from tests.loop import iteration, step_states

        mesh, ones = _everywhere()
        attempt = self.plan.attempt

        def step_on_device(own: Any, count: Any) -> Any:
            metrics = {"x": own[0] * count * 0.5, "attempt": attempt}
            # Steps are summed over the devices.
            steps = jnp.where(jax.lax.axis_index("d") == 0, count, 0)
            iteration(logger, step_states(steps[None]), metrics, count)
            return jnp.float32(count)

        axes = jax.P("d"), jax.P()
        step_of = jax.jit(
            jax.shard_map(step_on_device, mesh=mesh, in_specs=axes, out_specs=jax.P())
        )

        def log(step: int) -> tuple[float, float]:
            begin = time.monotonic()
            jax.block_until_ready(step_of(ones, np.int32(step)))
            now = time.monotonic()
            return now - begin, now

        return log

    def _obey(self, command: Path) -> None:
        wanted = json.loads(command.read_text())
        command.unlink()
        what, seconds = wanted["what"], wanted.get("seconds", 0.0)
        self.mark(f"begin:{what}")
        match what:
            case "stop":
                # All processes together, at a step to come.
                self._stop = int(seconds)
            case "gil":
                ctypes.PyDLL(None).usleep(int(seconds * 1e6))
            case "clock":
                self._shift_clock(seconds)
            case "disk":
                if self._disk is None:
                    self._disk = Disk({self._marks, self._sent}, Path(self.plan.log_dir))
                    self._disk.install()
                self.mark(f"disk:{seconds}")
                self._disk.trouble(seconds, wanted.get("number", 0), wanted.get("delay", 0.0))
            case "fork":
                _fork()
            case "spawn":
                _spawn()
            case _:
                raise ValueError(f"`what` is {what!r}, which is no trouble")
        self.mark(f"end:{what}")

    def _shift_clock(self, seconds: float) -> None:
        """The clock of the machine jumps, as this process sees it: a patch of `time.time`."""
        self._clock += seconds
        real = getattr(time.time, "real", time.time)

        def shifted() -> float:
            return real() + self._clock

        setattr(shifted, "real", real)  # noqa: B010 (a type checker refuses an assignment)
        time.time = shifted


def _everywhere() -> tuple[Any, Any]:
    """A mesh of all devices, and a one on each of them."""
    import jax
    from jax.sharding import NamedSharding

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
    here = np.ones(jax.local_device_count(), np.float32)
    sharding = NamedSharding(mesh, jax.P("d"))
    return mesh, jax.make_array_from_process_local_data(sharding, here)


def _fork() -> None:
    """Two children, as a data loader has them: one that ends at once, one that lives on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that forking is not safe with JAX's threads
        for lives in (False, True):
            if os.fork() == 0:
                if lives:
                    threading.Event().wait(20.0)
                os._exit(0)


def _spawn() -> None:
    """A child that imports this module again, as spawned workers do."""
    import multiprocessing

    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    child.start()
    child.join(60.0)
    assert child.exitcode == 0, child.exitcode


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Each warning once, as a user sees them."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


def main(text: str) -> None:
    """Run the worker of a plan."""
    fields = json.loads(text)
    fields["backends"], fields["more"] = tuple(fields["backends"]), tuple(fields["more"])
    with quiet():
        Worker(Plan(**fields)).run()


if __name__ == "__main__":
    main(sys.argv[1])
