"""The folder of a run on this machine, mirrored to a URL while this process writes it.

A bucket has no locks. Who writes a run holds its lease: an object that it writes again every 20 s.
Another process that finds a lease watches for as long as a writer may be silent whether it changes.
One whose lease was taken uploads no more.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import stat
import struct
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, final

from lerax_dist._failures import Failures
from lerax_dist.journal._bucket import LEASE, Bucket, download
from lerax_dist.journal._reader import JOURNAL
from lerax_dist.journal._run_file import RUN_FILE, JournalInUse, replace_file

# Seconds between two uploads: at first, at most, and as a share of the time since the start. Each
# makes a segment of each file, and who reads a long run reads all of them.
_INTERVAL = 5.0
_MAX_INTERVAL = 20.0
_SHARE = 1 / 500
# Seconds between two attempts while uploads fail: at first, at most, and while the run closes.
_RETRY = 1.0
_MAX_RETRY = 30.0
# Seconds between two times that the lease is written, and without one after which it is free.
_LEASE_INTERVAL = 20.0
_LEASE_TIMEOUT = 60.0
# A lease that is this old by the clocks of two hosts is free at once.
_LEASE_AGE = 600.0
# Seconds between two looks at a lease; after writing one, another start may have written it, too.
_LEASE_LOOK = 0.5
# Bytes that are uploaded at once, unless a record has more.
_MAX_SEGMENT = 1 << 23
_log = logging.getLogger("lerax_dist")


@final
class Mirror:
    """Uploads what is new in the folder of a run, in a thread of its own.

    That is the top level of the folder, `videos` and `logs`: files that only grow in segments,
    others whole. An upload that fails is a failure, shown once, and tried again.
    """

    def __init__(self, folder: Path, url: str, failures: Failures) -> None:
        """Take the lease of a run, and bring what its bucket has into the folder.

        The journal there must be locked, and may be empty.

        Args:
            folder: the folder, which exists.
            url: where to.
            failures: where to record what fails later.

        Raises:
            JournalInUse: another process writes the run.
            ModuleNotFoundError: a package is missing.
            ValueError: fsspec does not know the protocol.
            OSError: the bucket cannot be read or written.
        """
        self._folder = folder
        self._url = url
        self._failures = failures
        self._token = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._started = self._renewed = time.monotonic()
        self._next = 0.0
        self._retries = 0
        self._is_dirty = True
        # Uploads that were asked for: all, those that were tried, those that are done.
        self._asked = self._tried = self._done = 0
        self._deadline: float | None = None
        self._is_over = self._is_lost = False
        self._bucket = Bucket(url)
        self._take_lease()
        sizes = self._bucket.sizes()
        self._sent = download(self._bucket, sizes, folder, lambda name: name != LEASE)
        self._note([self._token], is_open=True)
        # Clips do not change; what else is there may.
        clips = [each for each in _files(folder) if "/" in each.name and not each.grows]
        self._whole = {c.name: c.version for c in clips if sizes.get(c.name) == c.size}

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="lerax_dist-bucket", daemon=True)
        self._thread.start()

    @property
    def is_started(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def changed(self, *, at_once: bool) -> None:
        """There is something new in the folder. Returns at once."""
        with self._changed:
            self._is_dirty = True
            self._asked += at_once
            self._changed.notify_all()

    def wait(self, deadline: float, *, unless_failing: bool = False) -> str | None:
        """Wait until all that is in the folder now is uploaded.

        Returns:
            What is missing at `deadline`, by `time.monotonic()`, or `None`.
        """
        with self._changed:
            self._asked += 1
            asked = self._asked
            self._changed.notify_all()
            if not (unless_failing and self._retries):
                timeout = max(deadline - time.monotonic(), 0.0)
                self._changed.wait_for(lambda: self._done >= asked or self._is_over, timeout)
            return None if self._done >= asked else self.describe_missing()

    def end(self, deadline: float) -> None:
        """Upload the rest until `deadline`, by `time.monotonic()`, and give the lease back."""
        with self._changed:
            self._deadline = deadline
            self._asked += 1
            self._changed.notify_all()

    def ended(self, timeout: float) -> bool:
        """Whether the thread ends, as `end` has asked, within that many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_over, timeout)

    def report_missing(self) -> None:
        """After the end: report what is not uploaded, if anything."""
        if self._done < self._asked and not self._is_lost:
            hint = "the next start of the run on this host uploads them"
            self._failures.record("bucket", f"{self.describe_missing()}; {hint}")

    def release(self) -> None:
        """Give the lease back, if the run was not started. Never raises."""
        with contextlib.suppress(OSError, JournalInUse):
            self._give_back()

    def describe_missing(self) -> str:
        """What is not uploaded, and where it is."""
        left = [
            each.size - self._sent.get(each.name, 0)
            for each in _files(self._folder)
            if self._whole.get(each.name) != each.version
            and self._sent.get(each.name, 0) != each.size
        ]
        return (
            f"{sum(left):,} bytes of {len(left)} files are not uploaded to {self._url} yet. They "
            f"are in {self._folder} on host {socket.gethostname()}"
        )

    def _run(self) -> None:
        while not self._is_over:
            with self._changed:
                while (pause := self._pause(time.monotonic())) > 0:
                    self._changed.wait(pause)
                asked, deadline = self._asked, self._deadline
                self._tried, self._is_dirty = asked, False
            error: BaseException | None = None
            try:
                self._push()
                if deadline is not None:
                    self._give_back()
            except BaseException as caught:
                # Of any type: a daemon that ends in silence would upload no more.
                error = caught
            self._record(error)
            with self._changed:
                now = time.monotonic()
                self._retries = 0 if error is None else self._retries + 1
                if error is None:
                    self._done = asked
                    pause = min(max((now - self._started) * _SHARE, _INTERVAL), _MAX_INTERVAL)
                else:
                    self._is_dirty = True
                    most = _MAX_RETRY if deadline is None else _RETRY
                    pause = min(_RETRY * 2 ** min(self._retries - 1, 10), most)
                self._next = now + pause
                ended = deadline is not None and (error is None or now >= deadline)
                self._is_lost = isinstance(error, JournalInUse)
                self._is_over = ended or self._is_lost
                self._changed.notify_all()

    def _pause(self, now: float) -> float:
        if self._asked > self._tried:
            return 0.0
        due = self._next if self._is_dirty else self._renewed + _LEASE_INTERVAL
        return due - now

    def _record(self, error: BaseException | None) -> None:
        if isinstance(error, JournalInUse):
            self._failures.record(
                "bucket", f"{error} Nothing more is uploaded. {self.describe_missing()}"
            )
        elif error is not None and not self._is_late:
            self._failures.record(
                "bucket",
                f"failed to upload to {self._url} ({error}). It is tried again; until then all "
                f"rows are in {self._folder} on host {socket.gethostname()}",
                error,
                kind="upload",
            )

    @property
    def _is_late(self) -> bool:
        """Whether the time for the end is over; then it was said what is missing."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def _push(self) -> None:
        """Upload what is new."""
        for each in _files(self._folder):
            self._renew()
            if each.grows:
                self._push_segments(each)
            elif self._whole.get(each.name) != each.version:
                self._bucket.write(each.name, each.path.read_bytes())
                self._whole[each.name] = each.version

    def _push_segments(self, file: "_File") -> None:
        sent, most = self._sent.get(file.name, 0), _MAX_SEGMENT
        with file.path.open("rb") as opened:
            while sent < file.size:
                opened.seek(sent)
                data = opened.read(min(file.size - sent, most))
                whole = _whole_records(file.name, data)
                if whole:
                    # The same name each time that it is tried, so that nothing is there twice.
                    self._bucket.write(f"{file.name}.{sent:016d}", data[:whole])
                    sent += whole
                    self._sent[file.name], most = sent, _MAX_SEGMENT
                    self._renew()
                elif len(data) == file.size - sent:
                    return
                else:
                    most *= 2

    def _take_lease(self) -> None:
        held = self._wait_for_holder(self._read_lease())
        mine = _read_json(self._folder / LEASE)
        tokens = [] if held is None else [held["token"]]
        if held is not None and held["token"] not in mine.get("tokens", []):
            self._set_aside(is_uploaded=not mine.get("open", True))
        elif mine:
            # Here is what the bucket has and maybe more, whoever writes it from now on.
            self._note([*tokens, self._token], is_open=True)
        self._write_lease(is_open=True)
        time.sleep(_LEASE_LOOK)
        self._check_lease()

    def _wait_for_holder(self, held: dict[str, Any] | None) -> dict[str, Any] | None:
        """The lease once it is free.

        Raises:
            JournalInUse: it is not.
        """
        if held is None or not held["open"] or time.time() - held["time"] > _LEASE_AGE:
            return held
        if held["host"] == socket.gethostname() and not _is_running(held["pid"]):
            # Nor is it this process, which has locked the journal by now.
            return held
        owner = f"process {held['pid']} on host {held['host']}"
        _log.warning(
            "waiting up to %g s to see if %s still writes %s", _LEASE_TIMEOUT, owner, self._url
        )
        deadline = time.monotonic() + _LEASE_TIMEOUT
        while time.monotonic() < deadline:
            time.sleep(_LEASE_LOOK)
            now = self._read_lease()
            if now != held:
                if now is None or not now["open"]:
                    return now
                raise JournalInUse(
                    f"`name` is the run of another logger that is still open: {owner} writes "
                    f"{self._url}. Close that logger first, or pass another `name`."
                )
        return held

    def _read_lease(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._bucket.read([LEASE])[0])
        except (FileNotFoundError, ValueError):
            return None

    def _check_lease(self) -> None:
        held = self._read_lease()
        if held is not None and held["token"] != self._token:
            raise JournalInUse(
                f"process {held['pid']} on host {held['host']} has taken over {self._url}."
            )

    def _write_lease(self, *, is_open: bool) -> None:
        lease = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid()}
        lease |= {"time": time.time(), "open": is_open}
        self._bucket.write(LEASE, json.dumps(lease).encode())
        self._renewed = time.monotonic()

    def _renew(self) -> None:
        if self._is_late:
            raise TimeoutError("the run was closed")
        if time.monotonic() - self._renewed >= _LEASE_INTERVAL:
            self._check_lease()
            self._write_lease(is_open=True)

    def _give_back(self) -> None:
        self._check_lease()
        self._write_lease(is_open=False)
        self._note([self._token], is_open=False)

    def _note(self, tokens: list[str], *, is_open: bool) -> None:
        """Note in the folder whose bucket's contents it holds, and whether there may be more."""
        data = json.dumps({"tokens": tokens, "open": is_open}).encode()
        replace_file(self._folder / LEASE, lambda file: file.write(data))

    def _set_aside(self, *, is_uploaded: bool) -> None:
        """Another host has continued the run: what is here is old, or was never uploaded."""
        aside = self._folder.with_name(f"{self._folder.name}.{self._token[:8]}.unsent")
        for file in _files(self._folder):
            if not is_uploaded and file.size:
                (aside / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.path, aside / file.name)
            if file.name == JOURNAL:
                # It is open and locked.
                os.truncate(file.path, 0)
            else:
                file.path.unlink()
        if aside.exists():
            self._failures.record(
                "bucket",
                f"another host has continued the run in {self._url} after this one was killed. "
                f"What this host had not uploaded by then is in {aside} only",
            )


def _is_running(pid: int) -> bool:
    """Whether there is such a process, besides this one."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


class _File(NamedTuple):
    """A file to mirror: its name in the folder, and what changes with its contents."""

    name: str
    path: Path
    size: int
    version: Any
    grows: bool  # whether it is only appended to


def _files(folder: Path) -> list[_File]:
    """The files to mirror: the journal, then the others in the order of their names."""
    found: list[_File] = []
    below = (path for each in ("videos", "logs") for path in (folder / each).rglob("*"))
    for path in (*folder.iterdir(), *below):
        name = path.relative_to(folder).as_posix()
        if not path.name.startswith(".") and path.suffix != ".new" and name != LEASE:
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                if stat.S_ISREG(about.st_mode):
                    # The time of `run.json` is a heartbeat.
                    version = (about.st_ino, about.st_size, name != RUN_FILE and about.st_mtime_ns)
                    grows = path.suffix in (".jsonl", ".log", ".torn")
                    grows |= "tfevents" in name and path.suffix != ".hparams"
                    found.append(_File(name, path, about.st_size, version, grows))
    return sorted(found, key=lambda each: (each.name != JOURNAL, each.name))


def _whole_records(name: str, data: bytes) -> int:
    """Size of the whole records at the start of some data: lines, or those of an event file."""
    if "tfevents" not in name:
        return data.rfind(b"\n") + 1
    end = 0
    while end + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, end)
        if end + 16 + length > len(data):
            break
        end += 16 + length
    return end


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
