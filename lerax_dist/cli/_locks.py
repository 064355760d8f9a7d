"""Whether a logger has a journal open, without touching its lock: only looks."""

import fcntl
import os
import struct
from typing import BinaryIO

_REMOTE = (
    *("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "virtiofs", "fuse"),
    *("gluster", "orangefs", "pvfs", "panfs", "wekafs", "daos"),
)
# Of `struct flock` on Linux with 64 bits: type, whence, start, length, process.
_FLOCK = "hhqqi4x"


def is_locked(file: BinaryIO) -> bool | None:
    """Whether a logger has a journal open; `None` if nobody here can tell.

    The lock is never taken, not for an instant: a logger that continues the run would not get it.
    Locks of this host are those that the system lists; a network file system is asked for those
    of other hosts, and if it names none there may still be one.
    """
    about = os.fstat(file.fileno())
    device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}"
    try:
        with open("/proc/locks") as locks, open("/proc/self/mountinfo") as mounts:
            if lists_lock(locks.read(), device, about.st_ino):
                return True
            local = is_local(mounts.read(), os.major(about.st_dev), os.minor(about.st_dev))
    except OSError:
        local = False
    if _asked(file):
        return True
    return False if local else None


def lists_lock(locks: str, device: str, inode: int) -> bool:
    """Whether a file is locked for writing, by the system's list.

    Args:
        locks: the list: `1: FLOCK  ADVISORY  WRITE 707 08:01:131 0 EOF` and so on.
        device: device of the file, as in the list.
        inode: its number there.
    """
    place = f"{device}:{inode}"
    return any(
        fields[-3] == place and "WRITE" in fields and "->" not in fields
        for fields in map(str.split, locks.splitlines())
        if len(fields) >= 8
    )


def is_local(mounts: str, major: int, minor: int) -> bool:
    """Whether no other host can have a file open, by the system's list of mounted file systems.

    Args:
        mounts: the list: `36 35 98:0 / /mnt rw - ext4 /dev/root rw` and so on.
        major: device of the file.
        minor: likewise.
    """
    kinds = []
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [f"{major}:{minor}"] and rest:
            kinds.append(rest.split()[0])
    return bool(kinds) and not any(kind.startswith(_REMOTE) for kind in kinds)


def _asked(file: BinaryIO) -> bool:
    """Whether the file system says that a lock for writing is in the way of one for reading."""
    question = struct.pack(_FLOCK, fcntl.F_RDLCK, 0, 0, 0, 0)
    try:
        answer = fcntl.fcntl(file, fcntl.F_GETLK, question)
    except OSError:
        return False
    return struct.unpack(_FLOCK, answer)[0] == fcntl.F_WRLCK
