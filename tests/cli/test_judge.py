"""What is a problem and what is not, from facts alone."""

import dataclasses
from typing import Any

import pytest

from lerax_dist.cli._facts import Clock, Collective, Devices, Disk, Facts, Folder, Process, Trackers
from lerax_dist.cli._finding import Finding
from lerax_dist.cli._judge import is_ok, judge

VERSIONS: dict[str, str | None] = {"python": "3.11.7", "jax": "0.10.2", "numpy": "2.4.6"}
TRACKERS = Trackers("2.6.5", "", "2.7", "0.31", "", "online", "https://w", True, True)


def good(count: int = 4) -> Facts:
    processes = [
        Process(i, f"h{i}", 100 + i, VERSIONS, "slurm", f"SLURM_PROCID={i}", i, count, None, [])
        for i in range(count)
    ]
    return Facts(
        timeout=30.0,
        processes=processes,
        clocks=[Clock(0.0, 0.0)] + [Clock(0.002, 0.001)] * (count - 1),
        folders=[Folder("/logs", True)] * count,
        devices=[Devices("gpu", "H", 2, 2 * count, i, count) for i in range(count)],
        collectives=[Collective(1.0, 0.001, True)] * count,
        disk=Disk("/logs", True, "", 1 << 40, True),
        trackers=TRACKERS,
    )


def changed(part: str, index: int, **fields: Any) -> Facts:
    facts = good()
    values = list(getattr(facts, part))
    values[index] = dataclasses.replace(values[index], **fields)
    return dataclasses.replace(facts, **{part: values})


def only(facts: Facts) -> Finding:
    (finding,) = judge(facts)
    assert is_ok([finding]) == (finding.level != "problem")
    return finding


def test_nothing_is_said_of_a_good_launch():
    assert judge(good()) == []
    assert is_ok([])


def test_versions_that_differ_name_who_has_which():
    finding = only(changed("processes", 2, versions=VERSIONS | {"jax": "0.9.0"}))
    assert finding.level == "problem"
    assert finding.what == (
        "jax differs: 0.10.2 on processes 0 (host h0), 1 (host h1), 3 (host h3), "
        "0.9.0 on process 2 (host h2)"
    )
    assert only(changed("processes", 1, versions=VERSIONS | {"jax": None})).what.endswith(
        "not installed on process 1 (host h1)"
    )
    assert only(changed("processes", 1, versions=VERSIONS | {"python": "3.12"})).level == "warning"


@pytest.mark.parametrize(
    ("offset", "bound", "level"),
    [(4.2, 0.01, "problem"), (-4.2, 0.01, "problem"), (4.2, 4.0, None), (0.9, 0.0, None)],
)
def test_skew_counts_as_far_as_it_is_certain(offset: float, bound: float, level: str | None):
    findings = judge(changed("clocks", 3, offset=offset, bound=bound))
    assert [finding.level for finding in findings] == [level] * (level is not None)
    if findings:
        told = f"clock skew of process 3 (host h3) is {offset:+.1f} s against process 0"
        assert str(findings[0]).startswith(told) and "chrony" in findings[0].mend


def test_a_folder_that_is_not_the_same():
    finding = only(changed("folders", 1, path="/home/logs", seen=False, why="not there"))
    assert "process 1 (host h1) does not see" in finding.what and "absolute" in finding.mend
    finding = only(changed("folders", 1, seen=False, why="not there"))
    assert "mount that folder on every host" in finding.mend


def test_a_folder_that_cannot_be_written_is_one_problem():
    facts = changed("folders", 1, seen=False)
    disk = Disk("/logs", False, "Read-only file system", None, False)
    finding = only(dataclasses.replace(facts, disk=disk))
    assert "cannot write to the log folder /logs (Read-only file system)" in finding.what


@pytest.mark.parametrize(
    ("free", "level"), [(10 << 20, "problem"), (1 << 30, "warning"), (None, None)]
)
def test_room_on_the_disk(free: int | None, level: str | None):
    disk = Disk("/logs", True, "", free, True)
    levels = [finding.level for finding in judge(dataclasses.replace(good(), disk=disk))]
    assert levels == [level] * (level is not None)


def test_devices_that_are_missing_twice_or_unlike():
    facts = dataclasses.replace(good(), devices=[Devices("gpu", "H", 2, 6, i, 4) for i in range(4)])
    assert "JAX sees 6 devices in all, but the processes have 8 together" in only(facts).what
    findings = judge(changed("devices", 3, platform="cpu", kind="cpu"))
    assert "cpu on process 3 (host h3)" in findings[0].what
    assert only(changed("devices", 3, kind="A")).level == "warning"
    assert (
        "is process 0 of 1 to JAX" in judge(changed("devices", 3, jax_index=0, jax_count=1))[0].what
    )


def test_rows_leave_the_devices_by_way_of_the_cpu():
    finding = only(changed("devices", 1, asked="cuda"))
    assert finding.level == "problem"
    assert finding.what.startswith("JAX_PLATFORMS=cuda on process 1 (host h1) starts no CPU device")
    assert finding.mend == "set JAX_PLATFORMS=cuda,cpu"
    assert judge(changed("devices", 1, asked="cuda,cpu")) == []


def test_a_gpu_that_was_asked_for_and_not_found_is_said():
    cpus = [Devices("cpu", "cpu", 2, 8, i, 4, "cuda,cpu") for i in range(4)]
    finding = only(dataclasses.replace(good(), devices=cpus))
    assert finding.level == "warning"
    assert finding.what.startswith("JAX_PLATFORMS=cuda,cpu asks for cuda first, but processes 0 ")
    cpus = [dataclasses.replace(each, asked="cpu") for each in cpus]
    assert judge(dataclasses.replace(good(), devices=cpus)) == []


def test_what_failed_or_hung_names_the_process_once():
    finding = only(changed("devices", 2, error="out of memory"))
    assert "process 2 (host h2) cannot start its devices (out of memory)" in finding.what
    finding = only(changed("collectives", 1, late=True))
    assert "had not ended after 30 s on process 1 (host h1)" in finding.what
    assert "gave a wrong sum" in only(changed("collectives", 1, right=False)).what


def test_who_waits_for_the_devices_of_others_is_not_the_problem():
    facts = good(2)
    devices = [Devices(late=True), Devices(error="no driver")]
    finding = only(dataclasses.replace(facts, devices=devices))
    assert "process 1 (host h1) cannot start its devices (no driver)" in finding.what
    devices = [Devices(late=True), Devices(late=True)]
    finding = only(dataclasses.replace(facts, devices=devices))
    assert finding.what.startswith("processes 0 (host h0), 1 (host h1) had not started")


def test_a_world_that_is_not_the_launchers():
    finding = only(changed("processes", 1, launch_index=5, launch_count=8))
    assert "process 1 of 4 (host h1) is process 5 of 8 to its launcher" in finding.what
    assert judge(changed("processes", 1, launch_index=None, launch_count=None)) == []


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"tensorboardx": None, "tensorboardx_error": "gone"}, "problem", "TensorBoard (gone)"),
        ({"crc32c": None}, "hint", "crc32c is missing"),
        ({"wandb": None, "wandb_error": "gone"}, "warning", "cannot use W&B (gone)"),
        ({"wandb_mode": "offline"}, "warning", "W&B is offline by its settings"),
        ({"wandb_credentials": False}, "warning", "no API key"),
        ({"wandb_reachable": False, "wandb_trouble": "refused"}, "warning", "(refused)"),
    ],
)
def test_trackers(change: dict[str, Any], level: str, words: str):
    trackers = dataclasses.replace(TRACKERS, **change)
    finding = only(dataclasses.replace(good(), trackers=trackers))
    assert (finding.level, words in finding.what) == (level, True)


def test_the_worst_comes_first_and_an_early_end_is_a_problem():
    facts = dataclasses.replace(
        changed("clocks", 1, offset=9.0),
        trackers=dataclasses.replace(TRACKERS, crc32c=None, wandb_mode="offline"),
        trouble="process 3 did not arrive",
    )
    levels = [finding.level for finding in judge(facts)]
    assert levels == ["problem", "problem", "warning", "hint"]
    assert str(judge(facts)[0]) == "process 3 did not arrive"


def test_many_processes_are_not_all_named():
    facts = good(40)
    facts = dataclasses.replace(facts, collectives=[Collective(late=True)] * 40)
    assert "and 32 more" in only(facts).what
