"""`run.json` beside a journal: which run it is, and, by its time, whether the writer is alive.

The identity survives the job that started the run. Whether the writer is alive is for display only:
the right to append comes from the journal's lock. The writer touches the file every 10 s. A reader
that watches compares what changes with its own monotonic clock, so clocks of hosts may differ; one
that looks once compares the time of the file with its own time.
"""

import contextlib
import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

from lerax_dist.journal._reader import JOURNAL, read_backwards
from lerax_dist.journal._record import Event, decode

_RUN_FILE = "run.json"
# Seconds between two heartbeats.
HEARTBEAT_INTERVAL = 10.0
# Seconds without a heartbeat after which a writer counts as dead: several heartbeats, and the time
# for which a network file system may show an old state.
_TIMEOUT = 60.0
# Files that are not complete, see `replace_file`.
_PART = "." + "[0-9a-f]" * 32 + ".part"
# In the line of each event that has an identity.
_OPEN = b'"kind":"open"'


class Identity(NamedTuple):
    """A run, and which incarnation of it this is.

    Attributes:
        run_id: the same in every incarnation of the run; W&B accepts it as an id.
        incarnation: 1 for the first process that writes the run, then one more each time.
    """

    run_id: str
    incarnation: int


def take_identity(
    directory: Path, *, continues: bool, known: Identity | None = None, new_id: str | None = None
) -> Identity:
    """The identity of a run that this process is about to write; `run.json` has it from now on.

    Args:
        directory: directory of the run.
        continues: whether its journal has records already.
        known: its identity when a checkpoint was made, if there is one.
        new_id: its id if it has none yet; `None` for a random one.

    Raises:
        OSError: the file cannot be written.
        ValueError: the directory has another run than the one known.
    """
    found = _read(directory / _RUN_FILE)
    if found is None:
        opened = last_opened(directory / JOURNAL)
        found = None if opened is None else _identity_of(opened.body)
    if known is not None and found is not None and found.run_id != known.run_id:
        raise ValueError(
            f"`state` is of a run with the id {known.run_id}, but {directory} holds one with the "
            f"id {found.run_id}. Pass the `log_dir` of the run in `state`, or no `state` to start "
            "a new run."
        )
    last = found or known
    if last is not None:
        identity = Identity(last.run_id, last.incarnation + 1)
    else:
        identity = Identity(new_id or uuid.uuid4().hex[:12], 2 if continues else 1)
    # What processes have left that were killed in `replace_file`. Runs below this one are others.
    for left in (*directory.glob(_PART), *directory.glob(f"videos/**/{_PART}")):
        with contextlib.suppress(OSError):
            left.unlink()
    _write(directory, identity)
    return identity


def restore_identity(journal: Path) -> None:
    """Write the identity of a run whose journal was made again; else the next start does it."""
    with contextlib.suppress(OSError):
        opened = last_opened(journal)
        identity = opened and _identity_of(opened.body)
        if identity and not (journal.parent / _RUN_FILE).exists():
            _write(journal.parent, identity)


def _write(directory: Path, identity: Identity) -> None:
    line = json.dumps(identity._asdict()).encode() + b"\n"
    replace_file(directory / _RUN_FILE, lambda file: file.write(line))


def _read(path: Path) -> Identity | None:
    try:
        return _identity_of(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return None


def last_opened(journal: Path) -> Event | None:
    """The last `open` record of a journal that has an identity."""
    try:
        with journal.open("rb") as file:
            fd = file.fileno()
            for _, line in read_backwards(fd, os.fstat(fd).st_size):
                found = decode(line) if _OPEN in line else None
                if found is not None and isinstance(found[1], Event) and found[1].kind == "open":
                    if _identity_of(found[1].body) is not None:
                        return found[1]
    except FileNotFoundError:
        pass
    return None


def _identity_of(fields: Mapping[str, Any]) -> Identity | None:
    try:
        return Identity(str(fields["run_id"]), int(fields["incarnation"]))
    except (ValueError, KeyError, TypeError):
        return None


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside `path`, sync it, and rename it: no reader and no crash sees half of it.

    Args:
        path: the file; it may exist, its folder must.
        write: writes the contents.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    # Nothing of the name: TensorBoard reads every file that has "tfevents" in its name. And random:
    # a process that was killed has left its file, and in a container the next has the same pid.
    beside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with beside.open("xb") as file:
            write(file)
            file.flush()
            # Else a host that loses power may be left with an empty file under the name below.
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def unused_path(path: Path) -> Path:
    """The path if nothing is there, else the first free one of `NAME_2.EXT`, `NAME_3.EXT`, ..."""
    others = (path.with_stem(f"{path.stem}_{i}") for i in itertools.count(2))
    return next(each for each in itertools.chain([path], others) if not each.exists())


@final
class Heartbeat:
    """The heartbeat of a run that this process writes.

    Args:
        clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self, directory: Path) -> None:
        """Touch the file of the run if the last time is 10 s ago. For one thread; never raises."""
        now = self._clock()
        if now - self._last >= HEARTBEAT_INTERVAL:
            self._last = now
            # It is for display only, and some file systems have no times.
            with contextlib.suppress(OSError):
                os.utime(directory / _RUN_FILE)


@final
class Liveness:
    """Whether the writer of a run is alive, by its heartbeats or a journal that grows.

    Args:
        journal: the journal of the run.
        clock: monotonic time in seconds.
        wall_clock: time in seconds since the epoch.
    """

    def __init__(
        self,
        journal: Path,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._paths = (journal, journal.parent / _RUN_FILE)
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: list[tuple[int, int]] | None = None
        self._changed = 0.0

    def is_alive(self) -> bool:
        """Look again. A writer that was killed counts as alive for up to 60 s."""
        seen = [_size_and_time(path) for path in self._paths]
        now = self._clock()
        if self._seen is None:
            # The one moment at which the clocks of two hosts are compared.
            newest = max(time for _, time in seen) / 1e9
            self._changed = now - max(self._wall_clock() - newest, 0.0)
        elif seen != self._seen:
            self._changed = now
        self._seen = seen
        return now - self._changed < _TIMEOUT


def _size_and_time(path: Path) -> tuple[int, int]:
    """Size and time of change in nanoseconds; zeros if there is no such file."""
    try:
        # Opened: a network file system then asks the server, and does not answer from memory.
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            return about.st_size, about.st_mtime_ns
    except OSError:
        return 0, 0
