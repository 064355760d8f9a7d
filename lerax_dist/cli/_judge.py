"""What is wrong with a launch, judged from its facts. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from lerax_dist.cli._facts import Facts, Process
from lerax_dist.cli._finding import Finding
from lerax_dist.cli._judge_writer import judge_disk, judge_trackers

T = TypeVar("T")

# Wall clocks that are kept by NTP agree to some milliseconds.
_MOST_SKEW = 1.0
_MOST_NAMED = 8


def judge(facts: Facts) -> list[Finding]:
    """What there is to say about a launch, the worst first."""
    found: list[Finding] = []
    if facts.trouble:
        found.append(Finding("problem", facts.trouble, ""))
    for judged in (_joined, _devices, _collectives, _versions, _clocks, _folders):
        found += judged(facts)
    if facts.disk is not None:
        found += judge_disk(facts.disk)
    if facts.trackers is not None:
        found += judge_trackers(facts.trackers)
    order = ("problem", "warning", "hint")
    return sorted(found, key=lambda finding: order.index(finding.level))


def is_ok(findings: Sequence[Finding]) -> bool:
    """Whether a run would log correctly."""
    return all(finding.level != "problem" for finding in findings)


def _joined(facts: Facts) -> Iterator[Finding]:
    for process in facts.processes:
        place = (process.launch_index, process.launch_count)
        joined = (process.index, len(facts.processes))
        if None not in place and place != joined and process.launcher != "explicit":
            yield Finding(
                "problem",
                f"process {process.index} of {joined[1]} (host {process.host}) is process "
                f"{place[0]} of {place[1]} to its launcher ({process.launcher}: {process.why})",
                "unset these variables if they were inherited from elsewhere, or start all "
                "processes with one launcher",
            )
        for note in process.notes:
            yield Finding("warning", f"process {process.index} (host {process.host}): {note}", "")
    if len(facts.processes) == 1 and "no step of srun" in facts.processes[0].why:
        yield Finding(
            "warning",
            f"this is one process on its own inside a SLURM job ({facts.processes[0].why})",
            "start it with srun if the training will have several processes",
        )


def _devices(facts: Facts) -> Iterator[Finding]:
    failed: dict[str, list[int]] = {}
    for index, devices in enumerate(facts.devices):
        if devices.error:
            failed.setdefault(f"cannot start its devices ({devices.error})", []).append(index)
    late = [index for index, devices in enumerate(facts.devices) if devices.late]
    # Devices of all processes start together: where some fail, others wait for them in vain.
    if late and not failed:
        failed[f"had not started its devices after {facts.timeout:g} s"] = late
    for what, indices in failed.items():
        yield Finding(
            "problem",
            f"{_named(indices, facts)} {what}",
            "read its error output; is the device taken by another program, the driver there, "
            "the host reachable under its name? Is it only slow, raise --timeout",
        )
    good = facts.devices
    if failed or not good:
        return
    for index, devices in enumerate(good):
        if (devices.jax_index, devices.jax_count) != (index, len(facts.processes)):
            yield Finding(
                "problem",
                f"{_named([index], facts)} is process {devices.jax_index} of {devices.jax_count} "
                f"to JAX, but {len(facts.processes)} have joined",
                "the devices belong to another world than the coordination service; unset "
                "variables of other launchers (TPU_*, SLURM_*)",
            )
    total = sum(devices.local for devices in good)
    counts = {devices.total for devices in good}
    if counts != {total}:
        seen = " or ".join(str(count) for count in sorted(counts))
        yield Finding(
            "problem",
            f"JAX sees {seen} devices in all, but the processes have {total} together",
            "a device that two processes share, or a process outside of the others' world: give "
            "each process its own (CUDA_VISIBLE_DEVICES, `srun --gpus-per-task`)",
        )
    yield from _asked(facts)
    yield from _unlike(facts)


def _asked(facts: Facts) -> Iterator[Finding]:
    """What JAX_PLATFORMS leaves out, and what it asks for in vain."""
    for asked, indices in _grouped([devices.asked for devices in facts.devices]).items():
        names = asked.split(",")
        if asked and "cpu" not in names:
            yield Finding(
                "problem",
                f"JAX_PLATFORMS={asked} on {_named(indices, facts)} starts no CPU device, by way "
                "of which a row leaves the others, so the first row would end the training",
                f"set JAX_PLATFORMS={asked},cpu",
            )
        found = [i for i in indices if names[0] != "cpu" and facts.devices[i].platform == "cpu"]
        if asked and found:
            yield Finding(
                "warning",
                f"JAX_PLATFORMS={asked} asks for {names[0]} first, but {_named(found, facts)} "
                "would compute on the CPU",
                "is there a GPU on that host, was it given to the job, does `nvidia-smi` see it?",
            )


def _unlike(facts: Facts) -> Iterator[Finding]:
    """Processes whose devices are not like the others'."""
    platforms = _grouped([devices.platform for devices in facts.devices])
    if len(platforms) > 1:
        yield Finding(
            "problem",
            f"the platform differs: {_told(platforms, facts, lambda value: value or 'none')}",
            "install the same jax with the same plugin everywhere, and see that no process is "
            "without a device",
        )
        return
    kinds = _grouped([devices.kind for devices in facts.devices])
    if len(kinds) > 1:
        told = _told(kinds, facts, str)
        yield Finding("warning", f"the devices differ: {told}", "the slowest sets the pace")
    counts = _grouped([devices.local for devices in facts.devices])
    if len(counts) > 1:
        yield Finding(
            "warning",
            f"the number of devices differs: {_told(counts, facts, str)}",
            "a mean over devices gives each of them the same weight; is it meant so?",
        )


def _collectives(facts: Facts) -> Iterator[Finding]:
    failed: dict[str, list[int]] = {}
    for index, collective in enumerate(facts.collectives):
        if collective.late:
            failed.setdefault(f"had not ended after {facts.timeout:g} s", []).append(index)
        elif collective.error:
            failed.setdefault(f"failed ({collective.error})", []).append(index)
        elif not collective.right:
            failed.setdefault("gave a wrong sum", []).append(index)
    for what, indices in failed.items():
        yield Finding(
            "problem",
            f"a collective over all devices {what} on {_named(indices, facts)}",
            "the processes reach the coordinator, but their devices do not reach each other: is "
            "each host's name resolved to an address that the others can reach, the network "
            "interface right (NCCL_SOCKET_IFNAME), no firewall between them?",
        )


def _versions(facts: Facts) -> Iterator[Finding]:
    for package in differing(facts.processes):
        versions = _grouped([process.versions.get(package) for process in facts.processes])
        told = _told(versions, facts, lambda value: value or "not installed")
        yield Finding(
            "warning" if package == "python" else "problem",
            f"{package} differs: {told}",
            "install the same version everywhere, e.g. one environment on a shared folder",
        )


def differing(processes: Sequence[Process]) -> list[str]:
    """Packages whose versions are not the same in all processes."""
    names = dict.fromkeys(name for process in processes for name in process.versions)
    return [name for name in names if len({p.versions.get(name) for p in processes}) > 1]


def _clocks(facts: Facts) -> Iterator[Finding]:
    for index, clock in enumerate(facts.clocks):
        if abs(clock.offset) - clock.bound > _MOST_SKEW:
            process = facts.processes[index]
            yield Finding(
                "problem",
                f"clock skew of process {index} (host {process.host}) is {clock.offset:+.1f} s "
                f"against process 0 (within {clock.bound:.2g} s)",
                "set the clock of that host (chrony or ntpd); else times in logs and files of the "
                "two hosts cannot be compared, and W&B may refuse its certificates",
            )


def _folders(facts: Facts) -> Iterator[Finding]:
    if facts.disk is None or not facts.disk.writable:
        return  # nobody can see a token that process 0 could not write
    unseen: dict[tuple[str, str], list[int]] = {}
    for index, folder in enumerate(facts.folders):
        if not folder.seen:
            unseen.setdefault((folder.path, folder.why), []).append(index)
    for (path, why), indices in unseen.items():
        mend = "mount that folder on every host, or give a --log-dir that is shared"
        if path != facts.disk.path:
            mend = "give --log-dir as an absolute path on a folder that all hosts share"
        yield Finding(
            "problem",
            f"{_named(indices, facts)} does not see the log folder of process 0: it looks at "
            f"{path}, process 0 writes to {facts.disk.path} ({why})",
            f"{mend}; else a run is found on process 0's host only, and not by a job that is "
            "requeued to another",
        )


def _grouped(values: Sequence[T]) -> dict[T, list[int]]:
    groups: dict[T, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return groups


def _told(groups: Mapping[T, Sequence[int]], facts: Facts, text: Callable[[T], str]) -> str:
    """Each value with who has it; the one that most have goes first, without names."""
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    parts = [f"{text(value)} on {_named(indices, facts)}" for value, indices in ordered]
    return ", ".join(parts)


def _named(indices: Sequence[int], facts: Facts) -> str:
    """Processes with their hosts, e.g. "processes 1 (host a), 2 (host b)"."""
    names = [f"{index} (host {facts.processes[index].host})" for index in indices[:_MOST_NAMED]]
    more = f" and {len(indices) - _MOST_NAMED} more" if len(indices) > _MOST_NAMED else ""
    return f"{'process' if len(indices) == 1 else 'processes'} {', '.join(names)}{more}"
