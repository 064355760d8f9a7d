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
    message: str,
    notice: tuple[float, str] | None = None,
    *,
    stream: Literal["stdout", "stderr"] = "stderr",
) -> Iterator[None]:
    """Print a message and end the process with status 1 if the block takes longer than `limit`.

    A notice is printed before that, after as many seconds as it gives. A second process prints, and
    faulthandler's thread, which needs no lock, ends this one. Inside another watchdog it does
    nothing.
    """
    global _active
    if _active:
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", _PRINT_LATE, stream]
    for after, text in (*([notice] if notice else []), (limit, message)):
        # Moments, not durations: the second process may start slowly.
        moment = time.monotonic() + after
        command += [str(moment), text if stream == "stdout" else f"lerax_dist: {text}"]
    # Its file can be another than the output of the process.
    output = sys.stdout if stream == "stdout" else None
    printer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)
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


def late_text(launch: Launch, timeout: float, where: str) -> str:
    """What a process that has waited for the others of its launch prints as it ends."""
    return (
        f"{launch} timed out after {timeout:g} s in {where}, where it waited for the other "
        "processes, and ends. Each process that waits prints this; those that print nothing are "
        "missing. Check that they were started and join, too. If they are only slow, raise "
        "`timeout`."
    )


def wait_notice(launch: Launch, timeout: float, where: str) -> tuple[float, str]:
    """After how many seconds such a process says that it waits, and how."""
    after = min(30.0, timeout / 2)
    return after, f"{launch} has waited {after:g} s for the others {where}; timeout: {timeout:g} s"
