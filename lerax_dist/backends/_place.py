"""Where a run runs, in words. Pure."""

from collections.abc import Mapping
from typing import Any


def describe_place(facts: Mapping[str, Any]) -> list[str]:
    """Launcher, processes times devices, host and incarnation, as far as they are known.

    Args:
        facts: what the journal says of the run, see `SupportsRunFacts`.
    """
    parts: list[str] = []
    if facts.get("launcher"):
        parts.append(str(facts["launcher"]))
    processes, devices = facts.get("process_count"), facts.get("device_count")
    if processes:
        size = f"{processes:,} process" if processes == 1 else f"{processes:,} processes"
        if devices and devices % processes == 0:
            each = devices // processes
            size += f" × {each:,} device" if each == 1 else f" × {each:,} devices"
        elif devices:
            size += f", {devices:,} devices"
        parts.append(size)
    if facts.get("host"):
        parts.append(f"on {facts['host']}")
    if facts.get("incarnation", 1) > 1:
        parts.append(f"incarnation {facts['incarnation']}")
    return parts
