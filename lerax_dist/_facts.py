"""Facts of a run, collected when it opens: where it runs, and from what code."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lerax_dist._secrets import hides_command, mask_command
from lerax_dist._version import __version__
from lerax_dist.cluster import ProcessGroup, current_job

# Packages whose version changes numbers or how they are written.
_PACKAGES = ("jax", "jaxlib", "equinox", "numpy", "lerax", "optax", "flax", "gymnax")
# Git is slow on some network file systems, and a run does not wait for it.
_GIT_TIMEOUT = 3.0

_T = TypeVar("_T")


def collect_facts(
    group: ProcessGroup,
    scope: str,
    devices: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """The facts of a run, on the process that writes it; it waits for no other.

    They are JSON values, see `AbstractLoggingBackend.on_run`. For `devices` see
    `describe_devices`.
    """
    folder = _unless_gone(_code_folder)
    facts: dict[str, Any] = {
        "launcher": group.launcher,
        "scope": scope,
        "process_count": group.process_count,
        "hosts": list(getattr(group, "hosts", [group.hostname])),
        **devices,
        "versions": versions(),
        "git": None if folder is None else git_state(folder),
        "command": None if hides_command(environ) else shlex.join(mask_command(sys.orig_argv)),
        "directory": _unless_gone(os.getcwd),
    }
    job = current_job(environ)
    if job is not None:
        facts[f"{job.scheduler}_job_id"] = job.id
    return facts


def versions() -> dict[str, str]:
    """Version of Python, of this package, and of those installed that matter to a run."""
    found = {"python": platform.python_version(), "lerax_dist": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """`commit`, `branch` (None if none is checked out) and `dirty` of the repository of a folder.

    Files that Git does not track do not count. None if there is no repository, no commit, no Git,
    or no answer in time.
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            # Without it Git may write to the repository.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_git_status(done.stdout) if done.returncode == 0 else None


def parse_git_status(output: str) -> dict[str, Any] | None:
    """The same by the output of `git status --porcelain=v2 --branch`."""
    headers: dict[str, str] = {}
    dirty = False
    for line in output.splitlines():
        if line.startswith("# "):
            key, _, value = line[2:].partition(" ")
            headers[key] = value
        else:
            dirty = True
    commit, branch = headers.get("branch.oid", "(initial)"), headers.get("branch.head")
    if commit == "(initial)":
        return None
    return {
        "commit": commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": dirty,
    }


def _code_folder() -> Path:
    """Folder of the script that runs; the working directory if there is no script."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(script).resolve().parent if script else Path.cwd()


def _unless_gone(ask: Callable[[], _T]) -> _T | None:
    """What `ask` returns; None if it needs the working directory, and that was deleted."""
    try:
        return ask()
    except OSError:
        return None
