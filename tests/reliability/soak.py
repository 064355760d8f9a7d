"""`python -m tests.reliability.soak`: one run of three processes, with faults for half an hour.

Which faults come when is decided by the seed that is printed first. At the end the journal and each
backend are compared with what was sent. The exit status is 1 if a row inside the promise is lost,
or a healthy training was ended by its logger.
"""

import argparse
import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import final

from tests.reliability.audit import Verdict, audit, last_step, undisturbed
from tests.reliability.launch import NotInTime, Started, start
from tests.reliability.worker import Plan

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
# A backend waits 30 s in all for a disk that fails, 6 s each time: more would cost it rows.
_MAX_DISK_ERRORS = 4
_MIN_START = 1.5
# After a disk has failed, a backend tries again within this time, in seconds.
_RECOVERY = 1.2
_END_TIMEOUT = 180.0


@final
class Soak:
    """One run that is killed and started again, with other troubles in between."""

    def __init__(self, folder: Path, random: Random, seconds: float) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self._random = random
        self._until = time.monotonic() + seconds
        self._killed: dict[int, float] = {}
        self._starts: dict[int, int] = {}
        # Of process 0, since its start.
        self._troubles: list[tuple[float, float]] = []

    def run(self) -> None:
        """Train until the time is over.

        Raises:
            NotInTime: a training that was healthy did not go on, or not end by itself.
        """
        attempt, begin = 0, 0
        while True:
            worker = self._start(attempt, begin)
            try:
                was_killed = self._disturb(worker)
                if not was_killed:
                    self._finish(worker)
            finally:
                worker.end()
            if not was_killed:
                return
            attempt += 1
            # A checkpoint is some steps old.
            begin = max(
                last_step(self.folder / "logs" / "run") + 1 - self._random.randrange(200), 1
            )
            self._starts[attempt] = begin

    def _start(self, attempt: int, begin: int) -> Started:
        # The first is whole; then a job may come back smaller.
        count = 3 if attempt == 0 else self._random.choice([3, 3, 2, 1])
        loop = self._random.choice(["plain", "compiled"])
        plan = Plan(
            str(self.folder / "logs"),
            str(self.folder / "side"),
            attempt=attempt,
            start=begin,
            loop=loop,
            join=True,
            backends=("event", "moody", "jsonl", "elsewhere"),
        )
        self._note(f"start {attempt} from step {begin}: {count} processes, {loop} loop")
        self.counts[f"started with {count} process{'' if count == 1 else 'es'}"] += 1
        worker = start(plan, count)
        for process in range(count):
            worker.await_mark("first", process)
        self._count = count
        self._troubles = []
        return worker

    def _disturb(self, worker: Started) -> bool:
        """Make troubles until a process is killed (true), or the time is over."""
        disk_errors = 0
        began = time.monotonic()
        while time.monotonic() < self._until:
            self._wait(self._random.uniform(0.2, 3.0))
            self._check(worker)
            process = self._random.randrange(self._count)
            what = self._random.choice(
                ["stop", "stop", "gil", "gil", "clock", "error", "slow", "limit", "fork", "kill"]
            )
            if what in ("error", "limit"):
                disk_errors += 1
                if disk_errors > _MAX_DISK_ERRORS:
                    continue
            seconds = self._random.uniform(0.5, 5.0)
            if what == "kill":
                self._wait(began + _MIN_START - time.monotonic())
            self._note(f"{what} process {process}, {seconds:.1f} s")
            self.counts[what] += 1
            if what == "kill":
                at = time.monotonic()
                os.kill(self._pid(worker, process), signal.SIGKILL)
                troubles = self._troubles + self._own_troubles(worker)
                self._killed[worker.plan.attempt] = undisturbed(at, troubles)
                worker.wait(_END_TIMEOUT)
                return True
            self._trouble(worker, what, process, seconds)
        return False

    def _trouble(self, worker: Started, what: str, process: int, seconds: float) -> None:
        match what:
            case "stop":
                pid = self._pid(worker, process)
                begin = time.monotonic()
                os.kill(pid, signal.SIGSTOP)
                self._wait(seconds)
                os.kill(pid, signal.SIGCONT)
                if process == 0:
                    self._troubles.append((begin, time.monotonic()))
            case "gil":
                worker.tell(process, "gil", seconds=seconds)
            case "clock":
                worker.tell(process, "clock", seconds=self._random.choice([-3600.0, 3600.0, 90.0]))
            case "error":
                number = self._random.choice(_ERRORS)
                worker.tell(0, "disk", seconds=seconds / 2, number=number)
            case "slow":
                worker.tell(0, "disk", seconds=seconds, delay=self._random.uniform(0.01, 0.3))
            case "fork":
                worker.tell(process, "fork")
            case "limit":
                pid = self._pid(worker, 0)
                size = (self.folder / "logs" / "run" / "journal.jsonl").stat().st_size
                none = resource.RLIM_INFINITY
                begin = time.monotonic()
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, none))
                self._wait(seconds / 2)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (none, none))
                self._troubles.append((begin, time.monotonic() + _RECOVERY))

    def _own_troubles(self, worker: Started) -> list[tuple[float, float]]:
        """When process 0 held its GIL, and when its disk failed, by its own notes."""
        found: list[tuple[float, float]] = []
        path = Path(worker.plan.side) / f"marks-0-{worker.plan.attempt:04}"
        for line in path.read_text().splitlines():
            word, at, _ = line.rsplit(" ", 2)
            begin = float(at)
            if word == "begin:gil":
                found.append((begin, time.monotonic()))
            elif word == "end:gil":
                found[-1] = found[-1][0], begin
            elif word.startswith("disk:"):
                found.append((begin, begin + float(word.removeprefix("disk:")) + _RECOVERY))
        return found

    def _finish(self, worker: Started) -> None:
        self._wait(1.0)
        self._check(worker)
        # Far enough for each process to hear of it before it is there.
        stop = last_step(self.folder / "logs" / "run") + 1500
        for process in range(self._count):
            worker.tell(process, "stop", seconds=stop)
        code = worker.wait(_END_TIMEOUT)
        if code:
            raise NotInTime(f"exit status {code}:\n{worker.text()[-3000:]}")

    def _check(self, worker: Started) -> None:
        if worker.poll() is not None:
            raise NotInTime(f"ended with status {worker.code}:\n{worker.text()[-3000:]}")

    def _pid(self, worker: Started, process: int) -> int:
        return worker.marks(process)["first"][1]

    def _wait(self, seconds: float) -> None:
        threading.Event().wait(max(seconds, 0.0))

    def _note(self, what: str) -> None:
        left = self._until - time.monotonic()
        print(f"{left:7.1f} s left: {what}", flush=True)

    def verdict(self) -> tuple[list[str], str]:
        """What is wrong with what is on disk, and the figures as cells of a table; prints both."""
        side = self.folder / "side"
        files = {
            "journal": "journal",
            "event files": "event",
            "JSON lines": "jsonl",
            "JSON lines in another folder": str(side / "elsewhere" / "run" / "metrics.jsonl"),
        }
        wrong: list[str] = []
        judged: list[str] = []
        found = Verdict()
        for name, file in files.items():
            found = audit(
                self.folder / "logs" / "run",
                side,
                killed=self._killed,
                starts=self._starts,
                files=(file,),
            )
            wrong += found.wrong
            judged.append(f"{name}: {'wrong' if found.wrong else 'right'}, {found.lost:,} lost")
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        print(f"faults: {faults}")
        print(f"audit: {'; '.join(judged)}")
        print(
            f"rows sent: {found.sent:,}; promised: {found.promised:,}; longest stop of the "
            f"training: {found.longest:.3f} s",
            flush=True,
        )
        cells = (
            f"{found.sent:,}",
            f"{found.promised:,}",
            f"{found.longest:.1f}",
            f"{len(self._starts) + 1}",
            faults,
            "; ".join(judged),
        )
        return wrong, " | ".join(cells)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--report", type=Path, help="a file to append a row of the figures to")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.seconds:g} s", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, Random(args.seed), args.seconds)
    begin = time.monotonic()
    wrong: list[str] = []
    try:
        soak.run()
    except NotInTime as error:
        wrong.append(f"a healthy training was ended: {error}")
    minutes = (time.monotonic() - begin) / 60
    ended = len(wrong)
    print(f"healthy trainings ended by their logger: {ended}")
    more, cells = soak.verdict()
    wrong += more
    if args.report is not None:
        with args.report.open("a") as report:
            report.write(f"| {args.seed} | {minutes:.0f} | {ended} | {cells} |\n")
    for text in wrong:
        print(f"WRONG: {text}")
    if wrong:
        print(f"all files are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
