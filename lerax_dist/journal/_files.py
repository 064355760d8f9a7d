"""Replaces a file as a whole: a reader, or a crash, never meets half of it."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_NUMBERS = itertools.count()


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside `path`, wait for the disk, and rename it to `path`.

    Args:
        path: the file; it may exist, its folder must.
        write: writes what the file shall contain.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    # Nothing of the name: TensorBoard reads whatever has "tfevents" in its name.
    beside = path.with_name(f".{os.getpid()}-{next(_NUMBERS)}.part")
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
