"""A process that has joined marks its environment, so that its children know what they are.

A child inherits the launcher's variables. It would wait forever for processes that have joined
already, or write a run beside that of its parent.
"""

import json
import os
import sys
from pathlib import Path

from lerax_dist.cluster.launchers import Launch, show_variables

_MARK = "LERAX_DIST_JOINED"
# Beside `Launch.identity`: these differ between launches, but also within one.
_OF_PROCESS = ("PMI_FD", "PMI_PORT")


def mark_joined(launch: Launch) -> None:
    """Mark the environment of this process, which has joined the others of a launch."""
    mark = [os.getpid(), _start_time(os.getpid()), _describe(launch), str(launch)]
    os.environ[_MARK] = json.dumps(mark)


def unmark_joined() -> None:
    """Take the mark back: this process has left the others."""
    os.environ.pop(_MARK, None)


def check_no_child(launch: Launch) -> None:
    """Check that no parent of this process is this process of the launch.

    A restart by `exec` is the same process. A launcher that a joined process starts gives its
    processes other variables. A process whose parent has ended takes its place.
    """
    try:
        pid, start, description, text = json.loads(os.environ.get(_MARK, "[]"))
    except ValueError:
        return
    if pid != os.getpid() and start == _start_time(pid) and description == _describe(launch):
        raise child_error(pid, text)


def child_error(pid: int, launch: str) -> RuntimeError:
    """The error of a child of a process that has joined, with what to do."""
    return RuntimeError(
        f"This process (pid {os.getpid()}) is a child of pid {pid}, {launch}, which has joined the "
        "other processes; a child cannot. To log a run of its own pass `group=SoloGroup()`. If "
        "`multiprocessing` imports the main module again, join and log under `if __name__ == "
        '"__main__":`. To join as a process of another launch start it without the variables '
        "of this one."
    )


def imports_main_again() -> bool:
    """Whether this process was spawned by `multiprocessing` and imports the main module again."""
    # By this `multiprocessing` itself refuses to start processes meanwhile. Not imported here, as
    # that puts the main module under a second name.
    module = sys.modules.get("multiprocessing.process")
    return module is not None and getattr(module.current_process(), "_inheriting", False)


def _describe(launch: Launch) -> str:
    return f"{launch.launcher} {launch.evidence} {launch.identity} " + show_variables(
        os.environ, *_OF_PROCESS
    )


def _start_time(pid: int) -> str | None:
    """When a process started, in a unit of the system; `None` if there is none.

    Ids of processes come again, and are others in a container.
    """
    try:
        # After the name, which may have blanks and parentheses.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else ""
