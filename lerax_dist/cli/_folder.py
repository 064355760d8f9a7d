"""Whether the log folder is one and the same for all: process 0 leaves a token, the others look."""

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from lerax_dist.cli._facts import Disk, Folder

# Network file systems remember for a while that a file is not there.
_PATIENCE = 2.0
_PAUSE = 0.1


@contextlib.contextmanager
def token_in(log_dir: str) -> Iterator[tuple[Disk, str]]:
    """Leave a token in a folder while the block runs; nothing of it stays.

    Args:
        log_dir: the folder; it is made if need be, and then removed again.

    Yields:
        What the folder is like, and the token's name, which nobody else could know.
    """
    folder = Path(os.path.abspath(log_dir))
    name = f".lerax-dist-doctor-{socket.gethostname()}-{secrets.token_hex(8)}"
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("xb") as token:
            token.write(name.encode())
            token.flush()
            os.fsync(token.fileno())
            locks = _can_lock(token.fileno())
        disk = Disk(str(folder), True, "", _free(folder), locks)
    except OSError as error:
        disk = Disk(str(folder), False, error.strerror or str(error), _free(folder), False)
    try:
        yield disk, name
    finally:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def look_for(name: str | None, log_dir: str) -> Folder:
    """Whether process 0's token is in the folder that `log_dir` is to this process.

    Args:
        name: name of the token; None if process 0 could not leave one.
        log_dir: the folder.
    """
    folder = Path(os.path.abspath(log_dir))
    if name is None:
        return Folder(str(folder), False, "process 0 left no token")
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            # Listing makes a network file system look again.
            if name in os.listdir(folder) and (folder / name).read_bytes() == name.encode():
                return Folder(str(folder), True)
            why = "its token is not there"
        except OSError as error:
            why = error.strerror or str(error)
        if time.monotonic() > deadline:
            return Folder(str(folder), False, why)
        time.sleep(_PAUSE)


def _can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
