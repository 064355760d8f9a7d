"""The facts of a run as text for people. Pure."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def markdown_table(values: Mapping[str, Any]) -> str:
    """Names and values as a table in Markdown."""
    rows = [f"|{_cell(name)}|{_cell(value)}|" for name, value in values.items()]
    return "\n".join(["|name|value|", "|-|-|", *rows])


def run_markdown(facts: Mapping[str, Any]) -> str:
    """The facts of a run, see `on_run`, as a table in Markdown with the command line below it."""
    rows = {
        "run": facts.get("name"),
        "id": _identity(facts),
        "started": _moment(facts.get("time")),
        "launcher": _launcher(facts),
        "processes": facts.get("process_count"),
        "hosts": hosts_text(facts),
        "devices": devices_text(facts),
        "git": _git(facts.get("git")),
        "directory": facts.get("directory"),
        # One line: TensorBoard shows a dozen before it scrolls.
        "versions": ", ".join(" ".join(pair) for pair in (facts.get("versions") or {}).items()),
    }
    table = markdown_table({name: value for name, value in rows.items() if value})
    command = facts.get("command")
    # Indented: it is shown as it is, backticks included.
    return f"{table}\n\n    {' '.join(str(command).split())}" if command else table


def run_notes(facts: Mapping[str, Any]) -> str:
    """A line on processes and devices, e.g. `slurm: 4 processes on n1, n2; 16 x H100`."""
    count = facts.get("process_count") or 1
    processes = f"{count} process{'es' if count != 1 else ''}"
    hosts = hosts_text(facts)
    where = f"{_launcher(facts) or 'solo'}: {processes}" + (f" on {hosts}" if hosts else "")
    return "; ".join(filter(None, [where, devices_text(facts), _git(facts.get("git"))]))


def hosts_text(facts: Mapping[str, Any]) -> str:
    """Hosts with the number of processes on each, at most eight of them by name."""
    counts = Counter(host for host in facts.get("hosts") or [] if host)
    named = [host if n == 1 else f"{host} ({n})" for host, n in list(counts.items())[:8]]
    more = len(counts) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def devices_text(facts: Mapping[str, Any]) -> str:
    """Number and kind of the devices, e.g. `16 x NVIDIA H100 (4 a process)`."""
    kind = facts.get("device_kind") or facts.get("platform")
    counts = [count for count in facts.get("devices_per_process") or [] if count is not None]
    if not kind or not counts:
        return ""
    total = facts.get("device_count")
    low, high = min(counts), max(counts)
    each = f"{low} a process" if low == high else f"{low} to {high} a process"
    if total is None:
        return f"{kind} ({each})"
    return f"{total} x {kind}" + (f" ({each})" if len(counts) > 1 else "")


def _identity(facts: Mapping[str, Any]) -> str | None:
    run_id, incarnation = facts.get("run_id"), facts.get("incarnation")
    return f"{run_id}, incarnation {incarnation}" if run_id else None


def _launcher(facts: Mapping[str, Any]) -> str | None:
    launcher = facts.get("launcher")
    job = next((facts[name] for name in facts if name.endswith("_job_id")), None)
    return f"{launcher}, job {job}" if launcher and job else launcher


def _moment(seconds: float | None) -> str | None:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else None


def _git(git: Mapping[str, Any] | None) -> str | None:
    if not git:
        return None
    branch = f" ({git['branch']})" if git.get("branch") else ""
    dirty = ", with changes not committed" if git.get("dirty") else ""
    return f"{git['commit'][:12]}{branch}{dirty}"


def _cell(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("\r", "").replace("\n", "<br>")
