"""The folder of a run on this machine, mirrored to a URL while this process writes it.

A bucket has no locks. Who writes a run holds its lease: an object that it writes again every 10 s.
Another process that finds a lease watches for as long as a writer may be silent whether it changes.
One whose lease was taken uploads no more.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import socket
import stat
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, final

from lerax_dist._failures import Failures
from lerax_dist.journal._bucket import LEASE, Bucket, place_of, size_of
from lerax_dist.journal._reader import JOURNAL
from lerax_dist.journal._run_file import RUN_FILE, JournalInUse

# Seconds between two uploads, the longer the run: who reads it reads a segment for each.
_INTERVAL = 5.0
_MAX_INTERVAL = 20.0
# Seconds between two attempts while uploads fail.
_RETRY = 2.0
# Seconds between two times that the lease is written, and without one after which it is free.
_LEASE_INTERVAL = 10.0
_LEASE_TIMEOUT = 60.0
# Seconds between two looks at a lease; after writing one, another start may have written it, too.
_LEASE_LOOK = 0.5
# Bytes that are uploaded at once, unless a record has more.
_MAX_SEGMENT = 1 << 22
_FOLDERS = ("videos", "logs")
_log = logging.getLogger("lerax_dist")


@final
class Mirror:
    """Uploads what is new in the folder of a run, in a thread of its own.

    That is the top level of the folder, `videos` and `logs`: files that only grow in segments,
    others whole. An upload that fails is a failure, shown once, and tried again.
    """

    def __init__(self, folder: Path, url: str, failures: Failures) -> None:
        """Take the lease of a run whose journal is locked, and bring what its bucket has.

        `JournalInUse` if another process writes it; `OSError`, or as of `Bucket`, if it fails."""
        # Set when nothing more is uploaded; and whether the last upload failed.
        self.ended, self.is_failing = threading.Event(), False
        self._folder = folder
        self._url = url
        self._failures = failures
        self._token = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="lerax_dist-bucket", daemon=True)
        # Uploads: those that were asked for, that were tried, that are done.
        self._asked = self._tried = self._done = 0
        self._deadline = math.inf
        self._bucket = Bucket(url)
        self._take_lease()
        sizes = [each for each in sorted(self._bucket.sizes().items()) if _is_own(each[0])]
        # What the bucket has of each file: the version, or the size at first.
        self._sent = {place_of(name)[0]: place_of(name)[1] + size for name, size in sizes}
        if not self._has_all([name for name, _ in sizes if place_of(name)[0] == JOURNAL]):
            self._set_aside()
        for each in _files(folder):
            if self._sent.get(each.name) == each.size:
                self._sent[each.name] = each.version
        # Where a file that was removed and made again begins in that of the bucket.
        self._begins: dict[str, int] = {}

    def upload(self, deadline: float) -> bool:
        """Upload all, at once; whether it is done by `deadline`. No wait while uploads fail."""
        with self._changed:
            if not self._thread.ident:
                self._thread.start()
            self._asked = asked = self._asked + 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._done >= asked or self.is_failing or self.ended.is_set(),
                max(deadline - time.monotonic(), 0.0),
            )
            return self._done >= asked

    def end(self, deadline: float) -> None:
        """Upload the rest until `deadline`, by `time.monotonic()`, and give the lease back."""
        self._deadline = min(self._deadline, deadline)
        self.upload(0.0)

    def release(self) -> None:
        """Give the lease back, if the run was not started. Never raises."""
        if not self._thread.ident:
            with contextlib.suppress(OSError, JournalInUse):
                self._write_lease(is_open=False)

    def describe_missing(self) -> str:
        """How much is not uploaded, and where it is."""
        left = sum(self._left(each) != 0 for each in _files(self._folder))
        host = socket.gethostname()
        return f"{left} files are not all in {self._url} yet, but in {self._folder} on host {host}"

    def _left(self, file: "_File") -> int:
        """Bytes that are not uploaded of a file that grows; of another whether it is not."""
        sent = self._sent.get(file.name, 0)
        if not file.grows:
            return sent != file.version
        if self._begins.get(file.name, 0) + file.size < sent:
            # Another file of that name: what the bucket has of the old one stays there.
            self._begins[file.name] = sent
        return self._begins.get(file.name, 0) + file.size - sent

    def _run(self) -> None:
        started, pause = time.monotonic(), 0.0
        while not self.ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._tried, pause)
                self._tried, deadline = self._asked, self._deadline
            error = self._try_push(is_last=deadline < math.inf)
            now = time.monotonic()
            with self._changed:
                self.is_failing = error is not None
                self._done = self._done if error else self._tried
                pause = _RETRY if error else min(_INTERVAL + (now - started) / 500, _MAX_INTERVAL)
                is_over = deadline < math.inf and not error or now >= deadline
                if is_over or isinstance(error, JournalInUse):
                    self.ended.set()
                self._changed.notify_all()

    def _try_push(self, *, is_last: bool) -> BaseException | None:
        """Upload what is new; returns, and records, what failed."""
        try:
            files = _files(self._folder)
            if not files or files[0].name != JOURNAL:
                raise FileNotFoundError(f"{self._folder / JOURNAL} was removed or moved")
            for each in files:
                self._renew()
                if self._left(each):
                    self._push(each)
            if is_last:
                self._write_lease(is_open=False)
            return None
        except BaseException as error:
            # Of any type: a daemon that ends in silence would upload no more.
            what = f"failed to upload ({error}); it is tried again"
            if isinstance(error, JournalInUse):
                what = f"{error} Nothing more is uploaded"
            self._failures.record(
                "bucket", f"{what}. {self.describe_missing()}", error, kind=what[:9]
            )
            return error

    def _renew(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the run was closed")
        if time.monotonic() - self._renewed >= _LEASE_INTERVAL:
            self._write_lease(is_open=True)

    def _push(self, file: "_File") -> None:
        if not file.grows:
            self._bucket.write(file.name, file.path.read_bytes())
            self._sent[file.name] = file.version
            return
        with file.path.open("rb") as opened:
            while left := self._left(file):
                sent = self._sent.get(file.name, 0)
                opened.seek(file.size - left)
                data = opened.read(min(left, _MAX_SEGMENT))
                if not _whole_records(file.name, data):
                    data += opened.read(left - len(data))
                whole = _whole_records(file.name, data)
                if not whole:
                    return
                # The same name each time that it is tried, so that nothing is there twice.
                self._bucket.write(f"{file.name}.{sent:016d}", data[:whole])
                self._sent[file.name] = sent + whole
                self._renew()

    def _has_all(self, segments: list[str]) -> bool:
        """Whether the folder has all of the bucket: its sizes, and its journal's last segment."""
        if any(size_of(self._folder / name) < size for name, size in self._sent.items()):
            return False
        last = self._bucket.read(segments[-1:])
        return all(_is_at(self._folder / JOURNAL, place_of(segments[-1])[1], data) for data in last)

    def _set_aside(self) -> None:
        """Bring what the bucket has; what is here is old, or was never uploaded."""
        aside = self._folder.with_name(f"{self._folder.name}.{self._token[:8]}.unsent")
        for file in _files(self._folder):
            (aside / file.name).parent.mkdir(parents=True, exist_ok=True)
            # The journal is open and locked.
            (shutil.copy2 if file.name == JOURNAL else shutil.move)(file.path, aside / file.name)
        os.truncate(self._folder / JOURNAL, 0)
        (self._folder / RUN_FILE).unlink(missing_ok=True)
        self._bucket.download(self._folder, _is_own)
        if _is_at(self._folder / JOURNAL, 0, (aside / JOURNAL).read_bytes()):
            shutil.rmtree(aside)
        else:
            what = f"another host has continued the run in {self._url}. What was not uploaded from"
            self._failures.record("bucket", f"{what} this one before is in {aside} only")

    def _take_lease(self) -> None:
        held = now = self._read_lease()
        owner = f"process {held.get('pid')} on host {held.get('host')}"
        # One of this host is alive if it is another process: the journal is locked.
        is_dead = held.get("host") == socket.gethostname() and (
            held["pid"] == os.getpid() or not Path(f"/proc/{held['pid']}").exists()
        )
        if held.get("open") and not is_dead:
            _log.warning("waiting to see if %s still writes %s", owner, self._url)
            deadline = time.monotonic() + _LEASE_TIMEOUT
            while now == held and time.monotonic() < deadline:
                time.sleep(_LEASE_LOOK)
                now = self._read_lease()
        if now != held and now.get("open"):
            raise JournalInUse(
                f"`name` is the run of another logger that is still open: {owner} writes "
                f"{self._url}. Close that logger first, or pass another `name`."
            )
        self._write_lease(is_open=True, takes=True)
        time.sleep(_LEASE_LOOK)
        self._write_lease(is_open=True)

    def _read_lease(self) -> dict[str, Any]:
        """The lease; empty if there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads(self._bucket.read([LEASE])[0])
        return {}

    def _write_lease(self, *, is_open: bool, takes: bool = False) -> None:
        """Write the lease. Raises `JournalInUse` if it is another's, unless this one takes it."""
        held = {} if takes else self._read_lease()
        if held.get("token", self._token) != self._token:
            raise JournalInUse(
                f"process {held['pid']} on host {held['host']} has taken over {self._url}."
            )
        lease = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid()}
        lease |= {"time": time.time(), "open": is_open}
        self._bucket.write(LEASE, json.dumps(lease).encode())
        self._renewed = time.monotonic()


class _File(NamedTuple):
    """A file to mirror: its name in the folder, and what changes with its contents."""

    name: str
    path: Path
    size: int
    version: int  # size of one that grows, else time of change
    grows: bool  # whether it is only appended to


def _is_own(name: str) -> bool:
    """Whether an object is a file of the run, and not of one below it."""
    return name != LEASE and ("/" not in name or name.split("/")[0] in _FOLDERS)


def _files(folder: Path) -> list[_File]:
    """The files to mirror: the journal, then the others in the order of their names."""
    found: list[_File] = []
    below = (path for each in _FOLDERS for path in (folder / each).rglob("*"))
    for path in (*folder.glob("*"), *below):
        name = path.relative_to(folder).as_posix()
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            if stat.S_ISREG(about.st_mode) and path.name[0] != "." and name != RUN_FILE:
                grows = path.suffix in (".jsonl", ".log", ".torn")
                grows |= "tfevents" in name and path.suffix != ".hparams"
                version = about.st_size if grows else about.st_mtime_ns
                found.append(_File(name, path, about.st_size, version, grows))
    return sorted(found, key=lambda each: (each.name != JOURNAL, each.name))


def _whole_records(name: str, data: bytes) -> int:
    """Size of the whole records at the start of some data: lines, or those of an event file."""
    if "tfevents" not in name:
        return data.rfind(b"\n") + 1
    end = after = 0
    while after <= len(data):
        end = after
        after += 16 + int.from_bytes(data[end : end + 8], "little")
    return end


def _is_at(path: Path, start: int, data: bytes) -> bool:
    """Whether a file has these bytes at that place."""
    with path.open("rb") as opened:
        opened.seek(start)
        return opened.read(len(data)) == data
