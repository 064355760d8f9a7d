"""What the doctor's report says: facts and findings to text. Pure."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lerax_dist.cli._facts import Clock, Devices, Facts, Trackers
from lerax_dist.cli._finding import Finding
from lerax_dist.cli._judge import differing, is_ok


def as_object(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    """The report as one JSON object."""
    told = [{"what": finding.what, "mend": finding.mend} for finding in findings]
    by_level = {
        level: [one for one, finding in zip(told, findings, strict=True) if finding.level == level]
        for level in ("problem", "warning", "hint")
    }
    return {
        "ok": is_ok(findings),
        "problems": by_level["problem"],
        "warnings": by_level["warning"],
        "hints": by_level["hint"],
        "facts": dataclasses.asdict(facts),
    }


def process_table(facts: Facts) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: a row for each process, a column for each fact that may differ."""
    packages = differing(facts.processes)
    heads = ["process", "host", "pid"]
    columns = [
        [str(process.index) for process in facts.processes],
        [process.host for process in facts.processes],
        [str(process.pid) for process in facts.processes],
    ]
    if facts.devices:
        heads.append("devices")
        same_kind = len({devices.kind for devices in facts.devices}) == 1
        columns.append([_devices(devices, not same_kind) for devices in facts.devices])
    if len(facts.clocks) > 1:
        heads.append("clock")
        columns.append(["reference", *map(_clock, facts.clocks[1:])])
    if len(facts.folders) > 1:
        heads.append("log folder")
        writes = "writes" if facts.disk is None or facts.disk.writable else "CANNOT WRITE"
        others = ("seen" if folder.seen else "NOT SEEN" for folder in facts.folders[1:])
        columns.append([writes, *others])
    for package in packages:
        heads.append(package)
        columns.append([process.versions.get(package) or "none" for process in facts.processes])
    return heads, [list(row) for row in zip(*columns, strict=True)]


def summary(facts: Facts) -> list[tuple[str, str]]:
    """Names and values of what is said once for all."""
    lines: list[tuple[str, str]] = []
    if facts.processes:
        lines += _launch(facts)
        first = facts.processes[0]
        same = [name for name in first.versions if name not in differing(facts.processes)]
        told = ", ".join(f"{name} {first.versions[name] or 'not installed'}" for name in same)
        lines.append(("versions", told + (", the same everywhere" if facts.processes[1:] else "")))
    if facts.devices:
        lines.append(("devices", _all_devices(facts.devices)))
    if facts.collectives:
        one = facts.collectives[0]
        if not (one.error or one.late):
            times = f"the first {_time(one.first)}, then {_time(one.warm)} each"
            lines.append(("sum over all", times))
    if facts.disk is not None:
        free = "" if facts.disk.free is None else f", {_size(facts.disk.free)} free"
        lines.append(("log folder", f"{facts.disk.path}{free}"))
    if facts.trackers is not None:
        lines += _trackers(facts.trackers)
    return lines


def verdict(findings: Sequence[Finding]) -> str:
    """The last line of the report."""
    count = sum(finding.level == "problem" for finding in findings)
    if not count:
        return "ok: a run would log correctly here"
    return f"{count} {'problem' if count == 1 else 'problems'}: a run would not log correctly here"


def _launch(facts: Facts) -> list[tuple[str, str]]:
    first, count = facts.processes[0], len(facts.processes)
    hosts = len({process.host for process in facts.processes})
    size = "one process" if count == 1 else f"{count} processes on {_number(hosts, 'host')}"
    lines = [("launch", f"{size}; {first.launcher}: {first.why}")]
    if count > 1:
        lines.append(("coordinator", first.coordinator or "chosen by JAX"))
    return lines


def _all_devices(devices: Sequence[Devices]) -> str:
    started = [one for one in devices if not (one.error or one.late)]
    if not started:
        return "none started"
    kinds = ", ".join(
        dict.fromkeys(
            one.platform if one.kind in ("", one.platform) else f"{one.platform} ({one.kind})"
            for one in started
        )
    )
    total, own = started[0].total, sum(one.local for one in started)
    if len(devices) == 1:
        return f"{total} {kinds}"
    if own == total:
        return f"{total} {kinds} in all, as many as the processes have together"
    return f"{total} {kinds} in all, BUT the processes have {own} together"


def _devices(devices: Devices, with_kind: bool) -> str:
    if devices.late:
        return "NOT STARTED"
    if devices.error:
        return "FAILED"
    kind = f" {devices.kind}" if with_kind and devices.kind != devices.platform else ""
    return f"{devices.local} {devices.platform}{kind}"


def _trackers(trackers: Trackers) -> list[tuple[str, str]]:
    crc = f"crc32c {trackers.crc32c}" if trackers.crc32c else "without crc32c"
    tensorboard = "cannot be used"
    if trackers.tensorboardx is not None:
        tensorboard = f"tensorboardX {trackers.tensorboardx}, {crc}"
    if trackers.wandb is None:
        wandb = "cannot be used"
    elif trackers.wandb_mode != "online":
        wandb = f"wandb {trackers.wandb}, {trackers.wandb_mode}"
    elif not trackers.wandb_credentials:
        wandb = f"wandb {trackers.wandb}, offline: no API key found"
    elif trackers.wandb_reachable:
        wandb = f"wandb {trackers.wandb}, an API key, {trackers.wandb_url} answers"
    else:
        wandb = f"wandb {trackers.wandb}, offline: {trackers.wandb_url} does not answer"
    return [("TensorBoard", tensorboard), ("W&B", wandb)]


def _clock(clock: Clock) -> str:
    if max(abs(clock.offset), clock.bound) < 1.0:
        return f"{clock.offset * 1e3:+.1f} ms ±{clock.bound * 1e3:.1f}"
    return f"{clock.offset:+.2f} s ±{clock.bound:.2f}"


def _time(seconds: float) -> str:
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length:
            return f"{seconds / length:.2f} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
