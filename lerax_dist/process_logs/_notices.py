"""Warnings and errors of the other processes, summed up for people. Pure."""

import json
from collections.abc import Mapping

from lerax_dist.process_logs._process_log import Counts

_MOST_NAMED = 4


def encode_notice(host: str, counts: Counts) -> str:
    """What a process posts about itself."""
    return json.dumps({"host": host, **counts._asdict()})


def decode_notice(text: str) -> tuple[str, Counts]:
    """Host and counts of what a process has posted."""
    fields = json.loads(text)
    return fields.pop("host"), Counts(**fields)


def summarise(
    before: Mapping[int, tuple[str, Counts]], now: Mapping[int, tuple[str, Counts]]
) -> str | None:
    """What is new on the other processes, as one line.

    Args:
        before: host and counts of each process when it was told last.
        now: the same as they are now.

    Returns:
        E.g. `3 warnings on process 7 (n3)`; None if nothing is new.
    """
    parts: list[str] = []
    newest: tuple[bool, int, str] | None = None
    for process, (host, counts) in sorted(now.items()):
        _, old = before.get(process, (host, Counts()))
        fresh = (counts.warnings - old.warnings, counts.errors - old.errors)
        if not any(fresh):
            continue
        parts.append(f"{_numbers(*fresh)} on process {process} ({host})")
        candidate = (fresh[1] > 0, process, counts.newest)
        if newest is None or candidate[0] > newest[0]:
            newest = candidate
    if newest is None:
        return None
    more = len(parts) - _MOST_NAMED
    told = "; ".join(parts[:_MOST_NAMED]) + (f"; and on {more} more processes" if more > 0 else "")
    return f"{told}. Process {newest[1]}: {newest[2]}"


def _numbers(warnings: int, errors: int) -> str:
    words = [
        f"{number} {word}{'s' if number != 1 else ''}"
        for number, word in ((errors, "error"), (warnings, "warning"))
        if number
    ]
    return " and ".join(words)
