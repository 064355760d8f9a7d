"""Check: whether the devices of all processes start, and belong to one launch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from lerax_dist.cli.doctor._check import (
    AbstractCheck,
    Context,
    Finding,
    Shown,
    format_differing,
    group_by_value,
    named,
    one_line,
)


@final
@dataclass(frozen=True)
class Devices:
    """The devices of a process. With an `error` the rest is empty."""

    platform: str = ""  # e.g. "cpu", "gpu", "tpu"
    kind: str = ""  # what the hardware calls itself
    local: int = 0  # how many this process has
    total: int = 0  # how many JAX sees in all processes
    jax_index: int = -1  # process index by JAX
    jax_count: int = 0  # process count by JAX
    asked: str = ""  # JAX_PLATFORMS, the only platforms that JAX starts; empty for all
    error: str = ""  # why they could not be started
    late: bool = False  # whether starting them timed out


@final
class DevicesCheck(AbstractCheck[Devices]):
    """The devices of each process, and how JAX counts them."""

    key = "devices"
    fact = Devices

    def collect(self, context: Context) -> Devices:
        try:
            return context.on_devices(start_devices)
        except Exception as error:
            return Devices(error=one_line(error), late=context.devices_hang)

    def judge(self, facts: Sequence[Devices], hosts: Sequence[str]) -> Iterator[Finding]:
        failed = [one for one in facts if one.error]
        # The devices of all processes start together: where one fails, others wait and time out.
        causes = [one for one in failed if not one.late] or failed
        for error in dict.fromkeys(one.error for one in causes):
            indices = [index for index, one in enumerate(facts) if one.error == error]
            yield Finding(
                "problem",
                f"{named(indices, hosts)} cannot start its devices ({error})",
                "read its error output; check that the driver is installed, and that the host name "
                "resolves; raise `--timeout` if it is slow; if a training holds the device, let it "
                "run, and check where a device is free",
            )
        if failed:
            return
        yield from _miscounted(facts, hosts)
        yield from _platforms_asked(facts, hosts)
        yield from _unlike(facts, hosts)

    def show(self, facts: Sequence[Devices]) -> Iterator[Shown]:
        same_kind = len({one.kind for one in facts}) == 1
        yield "devices", [_cell(one, with_kind=not same_kind) for one in facts]
        started = [one for one in facts if not one.error]
        if not started:
            yield "devices", "none started"
            return
        kinds = dict.fromkeys(
            one.platform if one.kind in ("", one.platform) else f"{one.platform} ({one.kind})"
            for one in started
        )
        total, local = started[0].total, sum(one.local for one in started)
        in_all = " in all" if len(facts) > 1 else ""
        but = "" if total == local else f", BUT the processes have {local} together"
        yield "devices", f"{total} {', '.join(kinds)}{in_all}{but}"


def start_devices() -> Devices:
    """Start the devices of this process; a RuntimeError if they cannot be started."""
    import jax

    local = jax.local_devices()
    return Devices(
        local[0].platform,
        local[0].device_kind,
        len(local),
        jax.device_count(),
        jax.process_index(),
        jax.process_count(),
        jax.config.values["jax_platforms"] or "",
    )


def _miscounted(facts: Sequence[Devices], hosts: Sequence[str]) -> Iterator[Finding]:
    for index, one in enumerate(facts):
        if (one.jax_index, one.jax_count) != (index, len(facts)):
            yield Finding(
                "problem",
                f"{named([index], hosts)} is process {one.jax_index} of {one.jax_count} in JAX, "
                f"but {len(facts)} processes joined",
                "unset variables of other launchers (TPU_*, SLURM_*): the devices belong to "
                "another launch than the coordinator",
            )
    local, totals = sum(one.local for one in facts), {one.total for one in facts}
    if totals != {local}:
        yield Finding(
            "problem",
            f"JAX sees {' or '.join(map(str, sorted(totals)))} devices in all, but the processes "
            f"have {local} together",
            "give each process its own devices (CUDA_VISIBLE_DEVICES, `srun --gpus-per-task`): two "
            "processes share one, or one process is not part of this launch",
        )


def _platforms_asked(facts: Sequence[Devices], hosts: Sequence[str]) -> Iterator[Finding]:
    """JAX_PLATFORMS without the CPU, or with a platform that was not found."""
    for asked, indices in group_by_value([one.asked for one in facts]).items():
        names = asked.split(",")
        if asked and "cpu" not in names:
            yield Finding(
                "problem",
                f"JAX_PLATFORMS={asked} on {named(indices, hosts)} disables JAX's CPU backend, "
                "which host callbacks need: the first row would end the training",
                f"set JAX_PLATFORMS={asked},cpu",
            )
        on_cpu = [i for i in indices if names[0] != "cpu" and facts[i].platform == "cpu"]
        if asked and on_cpu:
            yield Finding(
                "warning",
                f"JAX_PLATFORMS={asked} asks for {names[0]} first, but {named(on_cpu, hosts)} "
                "would compute on the CPU",
                "request a GPU for the job, and check that `nvidia-smi` lists it on that host",
            )


def _unlike(facts: Sequence[Devices], hosts: Sequence[str]) -> Iterator[Finding]:
    """Processes whose devices differ from those of the others."""
    platforms = format_differing([one.platform or "none" for one in facts], hosts)
    if platforms:
        yield Finding(
            "problem",
            f"the platform differs: {platforms}",
            "install the same jax with the same plugin on every host, and give each process a "
            "device",
        )
        return
    kinds = format_differing([one.kind for one in facts], hosts)
    if kinds:
        fix = "use one kind of device: the slowest sets the pace"
        yield Finding("warning", f"the devices differ: {kinds}", fix)
    counts = format_differing([one.local for one in facts], hosts)
    if counts:
        fix = "check that this is intended: a mean over devices gives each device the same weight"
        yield Finding("warning", f"the number of devices differs: {counts}", fix)


def _cell(one: Devices, *, with_kind: bool) -> str:
    if one.error:
        return "NOT STARTED" if one.late else "FAILED"
    kind = f" {one.kind}" if with_kind and one.kind != one.platform else ""
    return f"{one.local} {one.platform}{kind}"
