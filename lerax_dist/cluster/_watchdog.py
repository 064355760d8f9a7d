"""A limit to a wait that holds Python's lock, as `MPI_Init` does: no thread can report it."""

import contextlib
import faulthandler
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Literal

from lerax_dist.cluster.launchers import Launch

_PRINT_LATE = (
    "import select, sys, time\n"
    "for moment, text in zip(sys.argv[2::2], sys.argv[3::2]):\n"
    "    if select.select([0], [], [], max(float(moment) - time.monotonic(), 0))[0]: break\n"
    "    print(text, file=getattr(sys, sys.argv[1]), flush=True)\n"
)
_active = False


@contextlib.contextmanager
def watchdog(
    limit: float,
    stream: Literal["stdout", "stderr"],
    message: str,
    *notices: tuple[float, str],
) -> Iterator[None]:
    """Print a message and end the process with status 1 if the block takes longer than `limit`.

    A second process prints, and faulthandler's thread, which needs no lock, ends this one. Inside
    another watchdog it does nothing.

    Args:
        limit: in seconds.
        stream: where to print.
        message: what to print at the limit.
        *notices: what to print before that, each with the seconds after which it is printed.
    """
    global _active
    if _active:
        yield
        return
    # Moments, not durations: the second process may start slowly.
    texts = [(time.monotonic() + after, text) for after, text in (*notices, (limit, message))]
    printer = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PRINT_LATE, stream]
        + [str(part) for pair in texts for part in pair],
        stdin=subprocess.PIPE,
        # Its file can be another than the output of the process.
        stdout=sys.stdout if stream == "stdout" else None,
    )
    _active = True
    with open(os.devnull, "w") as null:
        faulthandler.dump_traceback_later(limit + 1.0, exit=True, file=null)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            _active = False
            printer.kill()
            printer.communicate()


def late_texts(
    launch: Launch, timeout: float, where: str
) -> tuple[Literal["stderr"], str, tuple[float, str]]:
    """What a `watchdog` prints about a process that waits for the others of its launch."""
    after, name = min(30.0, timeout / 2), f"lerax_dist: {launch}"
    return (
        "stderr",
        f"{name} timed out after {timeout:g} s in {where}, where it waited for the other "
        "processes, and ends. Each process that waits prints this; those that print nothing are "
        "missing. Check that they were started and join, too. If they are only slow, raise "
        "`timeout`.",
        (after, f"{name} has waited {after:g} s for the others in {where}; timeout: {timeout:g} s"),
    )
