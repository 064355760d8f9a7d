"""Check: whether process 0 can write to the log folder, and the other processes see its files."""

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, final

from lerax_dist.cli.doctor._check import (
    AbstractCheck,
    Context,
    Finding,
    Shown,
    group_by_value,
    named,
)
from lerax_dist.journal._bucket import Bucket, folder_of, mirrored_url

# Bytes.
_MIN_FREE = 100 << 20
_LOW_FREE = 2 << 30
# Seconds. Network file systems cache for a while that a file does not exist.
_TIMEOUT = 2.0
_INTERVAL = 0.1


@final
@dataclass(frozen=True)
class Folder:
    """The log folder as a process sees it."""

    path: str  # absolute path of `--log-dir` there
    seen: bool  # whether process 0's probe file is in it; on process 0: whether it was written
    why: str = ""  # why not
    free: int | None = None  # free bytes, on process 0
    locks: bool | None = None  # whether the file system supports locks, on process 0


@final
class LogFolderCheck(AbstractCheck[Folder]):
    """Whether `--log-dir` can be written, and is the same folder on every process."""

    key = "folders"
    fact = Folder

    def collect(self, context: Context) -> Folder:
        folder = Path(os.path.abspath(folder_of(context.log_dir)))
        if url := mirrored_url(folder):
            why = ""
            try:
                if context.group.is_writer:
                    Bucket(url).probe()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
            return Folder(url, not why, why)
        name = found = None
        with contextlib.ExitStack() as stack:
            if context.group.is_writer:
                try:
                    probe = stack.enter_context(probe_file(folder))
                    name, free = Path(probe.name).name, shutil.disk_usage(folder).free
                    found = Folder(str(folder), True, "", free, _can_lock(probe))
                except OSError as error:
                    found = Folder(str(folder), False, _reason(error))
            name = context.broadcast(name, "name of the probe file")
            found = found or find_probe(folder, name)
            context.gather(None, "the end of the search for the probe file")
        return found

    def judge(self, facts: Sequence[Folder], hosts: Sequence[str]) -> Iterator[Finding]:
        first = facts[0]
        if not first.seen:
            yield Finding(
                "problem",
                f"process 0 cannot write to the log folder {first.path} ({first.why})",
                "pass another `--log-dir`, or make this one writable",
            )
            return
        if first.free is not None and first.free < _LOW_FREE:
            yield Finding(
                "problem" if first.free < _MIN_FREE else "warning",
                f"the log folder {first.path} has only {_size(first.free)} free",
                "free space there, or pass another `--log-dir`",
            )
        if first.locks is False:
            yield Finding(
                "warning",
                f"the file system of the log folder {first.path} does not support locks (flock), "
                "so two loggers that write one run at the same time are not detected",
                "give each run its own name, or pass a `--log-dir` on a file system with locks",
            )
        for folder, indices in group_by_value(facts).items():
            if folder.seen:
                continue
            fix = "mount that folder on every host, or pass a `--log-dir` that is shared"
            if folder.path != first.path:
                fix = "pass `--log-dir` as an absolute path of a folder that all hosts share"
            yield Finding(
                "problem",
                f"{named(indices, hosts)} cannot see the log folder of process 0: it looks in "
                f"{folder.path}, process 0 writes to {first.path} ({folder.why})",
                f"{fix}; otherwise only process 0's host has the run, and a job that is requeued "
                "to another host cannot resume it",
            )

    def show(self, facts: Sequence[Folder]) -> Iterator[Shown]:
        first = facts[0]
        if len(facts) > 1:
            others = ("seen" if folder.seen else "NOT SEEN" for folder in facts[1:])
            yield "log folder", ["writes" if first.seen else "CANNOT WRITE", *others]
        free = "" if first.free is None else f", {_size(first.free)} free"
        yield "log folder", f"{first.path}{free}"


@contextlib.contextmanager
def probe_file(folder: Path) -> Iterator[IO[bytes]]:
    """A file in a folder while the block runs; it contains its own name, which is random.

    The folder is made if it does not exist. What was made is removed afterwards.
    """
    path = folder / f".lerax-dist-doctor-{socket.gethostname()}-{secrets.token_hex(8)}"
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as probe:
            probe.write(path.name.encode())
            probe.flush()
            os.fsync(probe.fileno())
            yield probe
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def find_probe(folder: Path, name: str | None) -> Folder:
    """Look for process 0's probe file; its `name` is `None` if process 0 could not write one."""
    if name is None:
        return Folder(str(folder), False, "process 0 could not write a probe file")
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            # Listing makes a network file system look again.
            if name in os.listdir(folder) and (folder / name).read_bytes() == name.encode():
                return Folder(str(folder), True)
            why = "the probe file of process 0 is missing"
        except OSError as error:
            why = _reason(error)
        if time.monotonic() > deadline:
            return Folder(str(folder), False, why)
        time.sleep(_INTERVAL)


def _can_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _reason(error: OSError) -> str:
    return error.strerror or repr(error)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"
