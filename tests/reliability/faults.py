"""The faults: each is a function that runs a training, does it harm, and returns the verdict."""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, final

import lerax_dist as ld
from tests.reliability.audit import Verdict, audit, last_step
from tests.reliability.launch import NotInTime, Started, fork, start
from tests.reliability.worker import Plan

# A training that goes on must end in this time, in seconds, on a busy machine.
_END_TIMEOUT = 120.0
_LOCAL = ("journal", "event", "jsonl")
# As a user sees a failure; the path and line before it depend on who shows it.
_SAID = re.compile(
    r"^.*?(?:LoggingWarning: |lerax_dist: )(.*)$|^((?:RuntimeError: |W&B run ).*)$", re.MULTILINE
)


@final
@dataclass
class Trial:
    """One try of a fault.

    Attributes:
        folder: a new folder.
        random: decides about moments.
        quick: whether it is to take a few seconds.
        ended: healthy trainings that their logger has ended.
        started: the workers.
    """

    folder: Path
    random: Random
    quick: bool
    ended: int = 0
    started: list[Started] = field(default_factory=list)

    @property
    def side(self) -> Path:
        """Where the workers write what they have sent."""
        return self.folder / "side"

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return self.folder / "logs" / "run"

    @property
    def elsewhere(self) -> str:
        """The file of the backend that writes to another folder."""
        return str(self.side / "elsewhere" / "run" / "metrics.jsonl")

    def plan(self, **fields: Any) -> Plan:
        """A plan with the folders of this trial."""
        folders: dict[str, Any] = {"log_dir": str(self.folder / "logs"), "side": str(self.side)}
        return Plan(**(folders | fields))

    def fork(self, **fields: Any) -> Started:
        """Start a worker of one process, see `launch.fork`."""
        return self._started(fork(self.plan(**fields)))

    def start(self, processes: int = 0, env: Any = None, **fields: Any) -> Started:
        """Start a worker in interpreters of its own, see `launch.start`."""
        return self._started(start(self.plan(join=processes > 0, **fields), processes, env))

    def _started(self, worker: Started) -> Started:
        self.started.append(worker)
        return worker

    def sleep(self, least: float, most: float) -> None:
        """Until a random moment: the fault may come at any time."""
        threading.Event().wait(self.random.uniform(least, most))

    def finish(self, worker: Started, timeout: float = _END_TIMEOUT) -> None:
        """Let a training that nobody has killed come to its end."""
        worker.tell(0, "stop")
        self.expect_end(worker, timeout)

    def expect_end(self, worker: Started, timeout: float = _END_TIMEOUT, code: int = 0) -> None:
        """A training that nobody has killed ends by itself, with its own status."""
        try:
            got = worker.wait(timeout)
        except NotInTime:
            self.ended += 1
            raise
        if got != code:
            self.ended += 1
            raise NotInTime(f"exit status {got}, not {code}:\n{worker.text()[-3000:]}")

    def audit(self, **options: Any) -> Verdict:
        """Compare what is on disk with what was sent."""
        return audit(self.run_dir, self.side, **options)

    def said(self) -> list[str]:
        """What users were told."""
        texts: list[str] = []
        for worker in self.started:
            for match in _SAID.finditer(worker.text()):
                text = (match[1] or match[2]).replace(str(self.folder) + "/", "")
                texts.append(text)
        return texts

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self.started:
            worker.end()


Act = Callable[[Trial], Verdict]


@final
@dataclass(frozen=True)
class Fault:
    """A row of the matrix.

    Attributes:
        name: what happens.
        act: makes it happen once.
        times: how often.
        quick: how often in `make test`.
    """

    name: str
    act: Act
    times: int
    quick: int


# --- Kills


def _kill(trial: Trial, worker: Started, process: int = 0) -> float:
    """Kill a worker process; returns when."""
    pid = worker.marks(process)["first" if process == 0 else "open"][1]
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    worker.wait(60.0)
    return at


def _killed(loop: str, processes: int, process: int) -> Act:
    def act(trial: Trial) -> Verdict:
        worker = trial.start(processes, loop=loop) if processes else trial.fork(loop=loop)
        worker.await_mark("first")
        trial.sleep(1.1, 1.6 if trial.quick else 4.0)
        return trial.audit(killed={0: _kill(trial, worker, process)})

    return act


# --- Stalls and clocks


def _stalled(what: str, process: int) -> Act:
    """A process stands still and goes on; all of them train together."""

    def act(trial: Trial) -> Verdict:
        worker = trial.start(2, steps=500)
        pid = worker.await_mark("first")
        if process:
            pid = worker.await_mark("first", process)
        trial.sleep(0.0, 0.5)
        seconds = 2.0 if trial.quick else 20.0
        if what == "stop":
            os.kill(pid, signal.SIGSTOP)
            threading.Event().wait(seconds)
            os.kill(pid, signal.SIGCONT)
        elif what == "gil":
            worker.tell(process, "gil", seconds=seconds)
        else:
            worker.tell(process, "clock", seconds=-3600.0)
            worker.await_mark("end:clock", process)
            trial.sleep(0.2, 0.4)
            worker.tell(process, "clock", seconds=7200.0)
        trial.expect_end(worker)
        return trial.audit()

    return act


# --- Disks


def _as_root(*command: str) -> None:
    """Run a command.

    Raises:
        NotInTime: this user may not.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotInTime(f"this fault needs {command[0]!r} as root: {done.stderr}")


@contextlib.contextmanager
def _small_disk(folder: Path, image: Path | None = None) -> Iterator[None]:
    """A file system of 2 MiB in a folder; with `image`, ext4 of 16 MiB in that file.

    Raises:
        NotInTime: this user may not mount.
    """
    folder.mkdir(parents=True)
    if image is None:
        _as_root("mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder))
    else:
        with image.open("wb") as file:
            file.truncate(16 * 2**20)
        _as_root("mkfs.ext4", "-q", str(image))
        _as_root("mount", "-o", "loop,errors=remount-ro", str(image), str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def _frozen_disk(trial: Trial) -> Verdict:
    """Each write waits, in the system, as on a server of files that does not answer."""
    logs = trial.folder / "logs"
    with _small_disk(logs, trial.folder / "image"):
        worker = trial.fork(backends=("event", "jsonl", "elsewhere"))
        worker.await_mark("first")
        trial.sleep(0.3, 0.6)
        _as_root("fsfreeze", "--freeze", str(logs))
        try:
            trial.sleep(4.0, 6.0)
        finally:
            _as_root("fsfreeze", "--unfreeze", str(logs))
        trial.sleep(0.3, 0.6)
        trial.finish(worker)
        return trial.audit(files=(*_LOCAL, trial.elsewhere))


def _broken_disk(trial: Trial) -> Verdict:
    """The system makes a file system read-only, after an error in it, and it stays so."""
    logs = trial.folder / "logs"
    with _small_disk(logs, trial.folder / "image"):
        worker = trial.fork(backends=("event", "jsonl", "elsewhere"))
        worker.await_mark("first")
        trial.sleep(0.3, 0.6)
        command = ["findmnt", "--noheadings", "--output", "SOURCE", str(logs)]
        device = Path(subprocess.run(command, capture_output=True, text=True).stdout.strip())
        Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("harm")
        trial.sleep(1.0, 1.5)
        trial.finish(worker)
        # What stood there by then can be read; only a backend elsewhere can have all.
        ld.read_run(trial.run_dir)
        verdict = trial.audit(files=(trial.elsewhere,))
        if "rows are missing from" not in worker.text():
            verdict.wrong.append("it is not said that rows are missing")
        return verdict


def _full_disk(seconds: float, files: tuple[str, ...]) -> Act:
    def act(trial: Trial) -> Verdict:
        with _small_disk(trial.folder / "logs"):
            worker = trial.fork(backends=("event", "jsonl", "elsewhere"))
            worker.await_mark("first")
            trial.sleep(0.3, 0.6)
            filler = trial.folder / "logs" / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            threading.Event().wait(seconds)
            filler.unlink()
            trial.sleep(0.3, 0.6)
            trial.finish(worker)
            return trial.audit(files=(*files, trial.elsewhere))

    return act


def _size_limit(trial: Trial) -> Verdict:
    """The system refuses what lies behind a limit (RLIMIT_FSIZE), as a quota does."""
    worker = trial.fork(backends=("event", "jsonl", "elsewhere"))
    pid = worker.await_mark("first")
    # The file of what was sent is shorter, and must not meet the limit.
    trial.sleep(1.2, 1.5)
    size = (trial.run_dir / "journal.jsonl").stat().st_size + trial.random.randrange(2000)
    none = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, none))
    trial.sleep(0.6, 1.0)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (none, none))
    trial.sleep(0.3, 0.6)
    trial.finish(worker)
    return trial.audit(files=(*_LOCAL, trial.elsewhere))


def _disk_error(number: int = 0, delay: float = 0.0) -> Act:
    """Each write fails, or takes long, for a while."""

    def act(trial: Trial) -> Verdict:
        worker = trial.fork(backends=("event", "jsonl"))
        worker.await_mark("first")
        trial.sleep(0.3, 0.6)
        seconds = 1.5 if trial.quick else 3.0
        worker.tell(0, "disk", seconds=seconds, number=number, delay=delay)
        trial.sleep(seconds, seconds + 0.5)
        trial.finish(worker)
        return trial.audit()

    return act


def _folder(what: str) -> Act:
    """The folder of the run is gone while it runs, and the files in it stay open."""

    def act(trial: Trial) -> Verdict:
        disk = _small_disk(trial.folder / "logs") if what == "unmounted" else None
        with disk or contextlib.nullcontext():
            worker = trial.fork(backends=("event", "jsonl", "elsewhere"))
            worker.await_mark("first")
            trial.sleep(0.3, 0.6)
            moved = trial.folder / "moved"
            if what == "moved":
                trial.run_dir.rename(moved)
            elif what == "removed":
                shutil.rmtree(trial.run_dir)
            else:
                subprocess.run(["umount", "-l", trial.folder / "logs"], check=True)
            trial.sleep(2.0, 2.5)
            said = len(trial.said())
            trial.finish(worker)
            # Not with the curves: what is written after that is in files of their own.
            run_dir = moved if what == "moved" else trial.run_dir
            verdict = audit(run_dir, trial.side, files=("journal", trial.elsewhere))
            if not said:
                verdict.wrong.append("nothing was said within 2 s")
            return verdict

    return act


# --- W&B


def _wandb(trial: Trial, **extra: str) -> dict[str, str]:
    from tests.backends.test_wandb import KEY, isolated

    trial.side.mkdir(parents=True, exist_ok=True)
    return isolated(trial.side, WANDB_API_KEY=KEY, **extra)


def _wandb_unreachable(trial: Trial) -> Verdict:
    worker = trial.start(env=_wandb(trial), steps=500, backends=("event", "jsonl", "wandb"))
    trial.expect_end(worker)
    return trial.audit(files=(*_LOCAL, f"wandb:{trial.side}"))


def _wandb_hangs(trial: Trial) -> Verdict:
    """A server of this machine takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = _wandb(trial, WANDB_BASE_URL=url)
        worker = trial.start(env=env, steps=500, backends=("event", "jsonl", "wandb"))
        trial.expect_end(worker)
        return trial.audit(files=(*_LOCAL, f"wandb:{trial.side}"))


def _wandb_fails(trial: Trial) -> Verdict:
    env = _wandb(trial, WANDB_MODE="offline")
    worker = trial.start(env=env, steps=600, backends=("event", "jsonl", "wandb-fails"))
    trial.expect_end(worker)
    return trial.audit()


def _wandb_killed(trial: Trial) -> Verdict:
    """W&B's own process is killed."""
    env = _wandb(trial, WANDB_MODE="offline")
    worker = trial.start(env=env, backends=("event", "jsonl", "wandb"), timeout=15.0)
    pid = worker.await_mark("first")
    trial.sleep(0.5, 1.0)
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout.splitlines()
    cores = [int(line.split()[0]) for line in children if "wandb-core" in line]
    for core in cores:
        os.kill(core, signal.SIGKILL)
    trial.sleep(0.5, 1.0)
    trial.finish(worker)
    verdict = trial.audit()
    if not cores:
        verdict.wrong.append(f"W&B has no process to kill: {children}")
    return verdict


# --- Backends


def _backend(kind: str) -> Act:
    """A backend beside the others does harm."""

    def act(trial: Trial) -> Verdict:
        slow = kind in ("hangs", "late")
        timeout = 2.0 if trial.quick else 10.0
        worker = trial.fork(
            backends=(kind, "event", "jsonl"), timeout=timeout if slow else 60.0, steps=300
        )
        trial.expect_end(worker)
        return trial.audit()

    return act


# --- Ends


def _interrupted(trial: Trial) -> Verdict:
    """Ctrl-C while a logger opens, logs, or closes, and then what the program wanted to do."""
    phase, longest = trial.random.choice([("opening", 0.4), ("first", 0.3), ("closing", 0.1)])
    worker = trial.fork(steps=120, pause=0.002, timeout=30.0)
    worker.await_mark(phase)
    trial.sleep(0.0, longest)
    if worker.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGINT)
    at = time.monotonic()
    try:
        code = worker.wait(_END_TIMEOUT)
    except NotInTime:
        trial.ended += 1
        raise
    if code and not worker.text().rstrip().endswith("KeyboardInterrupt"):
        trial.ended += 1
        raise NotInTime(f"Ctrl-C in {phase!r}, status {code}:\n{worker.text()[-3000:]}")
    if "open" not in worker.marks():
        return Verdict()
    # Where Ctrl-C met the worker itself, this has ended without `close`.
    return trial.audit(killed={0: at} if code else None)


def _ends(ending: str) -> Act:
    def act(trial: Trial) -> Verdict:
        steps = 400
        worker = trial.start(ending=ending, steps=steps)
        trial.expect_end(worker, code=1 if ending == "raise" else 0)
        if ending == "_exit":
            return trial.audit(killed={0: worker.marks()["done"][0]})
        return trial.audit()

    return act


def _child(what: str) -> Act:
    """A process with children is killed; its run continues, though a child may live on."""

    def act(trial: Trial) -> Verdict:
        worker = trial.start() if what == "spawn" else trial.fork()
        worker.await_mark("first")
        trial.sleep(0.3, 0.6)
        worker.tell(0, what)
        worker.await_mark(f"end:{what}")
        trial.sleep(1.2, 1.5)
        killed = {0: _kill(trial, worker)}
        begin = last_step(trial.run_dir) + 1
        again = trial.fork(attempt=1, start=begin, steps=begin + 50)
        trial.expect_end(again)
        verdict = trial.audit(killed=killed, starts={1: begin})
        runs = [path.name for path in (trial.folder / "logs").iterdir()]
        if runs != ["run"]:
            verdict.wrong.append(f"runs {runs}")
        return verdict

    return act


def _two_at_once(trial: Trial) -> Verdict:
    """Two runs of one name start at one moment: one gets it, or each has a folder of its own."""
    sides = [trial.folder / "one", trial.folder / "two"]
    workers = [trial.fork(side=str(side), steps=40, pause=0.002) for side in sides]
    codes = [worker.wait(_END_TIMEOUT) for worker in workers]
    verdict = Verdict()
    runs = sorted((trial.folder / "logs").iterdir())
    winners = [side for side, code in zip(sides, codes, strict=True) if code == 0]
    for worker, code in zip(workers, codes, strict=True):
        if code and "another logger that is still open" not in worker.text():
            trial.ended += 1
            verdict.wrong.append(f"status {code}: {worker.text()[-1000:]}")
    if len(runs) != len(winners) or not winners:
        verdict.wrong.append(f"{len(winners)} winners, runs {[run.name for run in runs]}")
        return verdict
    # Which run is whose says the time.
    winners.sort(key=lambda side: (side / "marks-0-0000").read_text().split()[4])
    for run_dir, side in zip(runs, winners, strict=True):
        one = audit(run_dir, side)
        verdict.sent += one.sent
        verdict.promised += one.promised
        verdict.lost += one.lost
        verdict.wrong += one.wrong
        verdict.longest = max(verdict.longest, one.longest)
    return verdict


def _requeued(trial: Trial) -> Verdict:
    """A run is killed and started again, each time with another number of processes."""
    killed: dict[int, float] = {}
    starts: dict[int, int] = {}
    counts = (1, 2) if trial.quick else (1, 2, 3, 2, 1)
    begin = 0
    for attempt, count in enumerate(counts):
        is_last = attempt == len(counts) - 1
        steps = begin + 150 if is_last else 10**9
        worker = trial.start(count, attempt=attempt, start=begin, steps=steps)
        if is_last:
            trial.expect_end(worker)
            break
        worker.await_mark("first")
        trial.sleep(1.2, 1.6 if trial.quick else 3.0)
        killed[attempt] = _kill(trial, worker, trial.random.randrange(count))
        # A checkpoint is some steps old.
        begin = max(last_step(trial.run_dir) + 1 - trial.random.randrange(100), 1)
        starts[attempt + 1] = begin
    return trial.audit(killed=killed, starts=starts)


# --- Sizes


def _many_rows(trial: Trial) -> Verdict:
    worker = trial.fork(steps=10_000 if trial.quick else 10**6, pause=0.0, timeout=600.0)
    trial.expect_end(worker, 900.0)
    return trial.audit()


def _many_metrics(trial: Trial) -> Verdict:
    more = tuple(f"group_{i % 100}/metric_{i}" for i in range(10_000))
    worker = trial.fork(steps=3 if trial.quick else 50, more=more)
    trial.expect_end(worker)
    return trial.audit()


def _long_name(trial: Trial) -> Verdict:
    name = "n" * 2**20
    worker = trial.fork(steps=3 if trial.quick else 50, more=(name,))
    trial.expect_end(worker)
    verdict = trial.audit()
    if f'"{name}":1.0'.encode() not in (trial.run_dir / "journal.jsonl").read_bytes():
        verdict.wrong.append("the journal lacks the name")
    return verdict


FAULTS = (
    Fault("SIGKILL of the writer, plain loop", _killed("plain", 0, 0), 50, 2),
    Fault("SIGKILL of the writer, compiled loop", _killed("compiled", 0, 0), 50, 1),
    Fault("SIGKILL of the writer, 3 processes under `mpirun`", _killed("plain", 3, 0), 10, 0),
    Fault("SIGKILL of another process, 2 under `mpirun`", _killed("plain", 2, 1), 10, 1),
    Fault("SIGSTOP and SIGCONT of the writer", _stalled("stop", 0), 3, 1),
    Fault("SIGSTOP and SIGCONT of another", _stalled("stop", 1), 3, 0),
    Fault("the writer holds its GIL", _stalled("gil", 0), 3, 0),
    Fault("another holds its GIL", _stalled("gil", 1), 3, 1),
    Fault("the writer's clock jumps back 1 h, forward 2 h (patched)", _stalled("clock", 0), 3, 1),
    Fault("another's clock jumps back 1 h, forward 2 h (patched)", _stalled("clock", 1), 3, 0),
    Fault("disk full for 1.5 s (tmpfs)", _full_disk(1.5, _LOCAL), 5, 1),
    Fault("disk full for 12 s (tmpfs)", _full_disk(12.0, ("journal",)), 3, 0),
    Fault("file size limit (RLIMIT_FSIZE)", _size_limit, 5, 1),
    Fault("read-only file system (EROFS, patched write)", _disk_error(errno.EROFS), 5, 1),
    Fault("read-only for good after an error in it (ext4)", _broken_disk, 3, 0),
    Fault("disk stands still for 5 s (ext4, fsfreeze)", _frozen_disk, 5, 0),
    Fault("quota (EDQUOT, patched write)", _disk_error(errno.EDQUOT), 5, 0),
    Fault("slow disk: 200 ms a call (patched write)", _disk_error(delay=0.2), 5, 1),
    Fault("folder of the run removed", _folder("removed"), 5, 1),
    Fault("folder of the run moved", _folder("moved"), 5, 1),
    Fault("file system unmounted (lazily)", _folder("unmounted"), 5, 1),
    Fault("W&B: server unreachable", _wandb_unreachable, 3, 0),
    Fault("W&B: server takes connections and never answers", _wandb_hangs, 3, 0),
    Fault("W&B: calls fail from the 200th row on (patched)", _wandb_fails, 3, 0),
    Fault("W&B: its process is killed", _wandb_killed, 3, 1),
    Fault("a backend raises for half a second (OSError)", _backend("raises-once"), 5, 1),
    Fault("a backend raises always", _backend("raises"), 5, 1),
    Fault("a backend hangs", _backend("hangs"), 3, 1),
    Fault("a backend returns late (100 ms a row)", _backend("late"), 3, 1),
    Fault("a backend kills its thread (SystemExit)", _backend("quits"), 5, 1),
    Fault("a backend leaks 100 kB a row", _backend("leaks"), 3, 1),
    Fault("Ctrl-C while it opens, logs or closes", _interrupted, 200, 4),
    Fault("exit without `close`", _ends("exit"), 5, 1),
    Fault("an exception ends the program", _ends("raise"), 5, 0),
    Fault("`os._exit`", _ends("_exit"), 5, 0),
    Fault("fork: a child lives on when its parent is killed", _child("fork"), 5, 1),
    Fault("spawn, then a kill", _child("spawn"), 5, 0),
    Fault("two runs of one name at one moment", _two_at_once, 100, 2),
    Fault("requeued with 1, 2, 3, 2, 1 processes", _requeued, 3, 1),
    Fault("10^6 rows, as fast as they can be logged", _many_rows, 1, 1),
    Fault("10,000 metrics in a row", _many_metrics, 1, 1),
    Fault("a name of 1 MB", _long_name, 1, 1),
)
