"""Each check: what is wrong and what is shown, from facts alone."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import lerax_dist
from lerax_dist.backends import AbstractLoggingBackend, NoOpBackend
from lerax_dist.backends._base import SetupProblem
from lerax_dist.cli.doctor import CHECKS
from lerax_dist.cli.doctor._backends import BackendsCheck
from lerax_dist.cli.doctor._check import AbstractCheck, Context, Finding
from lerax_dist.cli.doctor._clocks import Clock, ClocksCheck
from lerax_dist.cli.doctor._collective import Collective, CollectiveCheck
from lerax_dist.cli.doctor._devices import Devices, DevicesCheck
from lerax_dist.cli.doctor._launch import LaunchCheck, Process
from lerax_dist.cli.doctor._log_folder import Folder, LogFolderCheck
from lerax_dist.cli.doctor._versions import VersionsCheck
from lerax_dist.cluster import SoloGroup, detect

HOSTS = ["h0", "h1", "h2", "h3"]
VERSIONS: dict[str, str | None] = {"python": "3.11.7", "jax": "0.10.2", "numpy": "2.4.6"}
# What four processes collect if all is well.
GOOD: dict[str, Sequence[Any]] = {
    "processes": [
        Process(i, f"h{i}", 100 + i, "slurm", f"SLURM_PROCID={i}", "", i, 4, None, [], "", "", "")
        for i in range(4)
    ],
    "versions": [VERSIONS] * 4,
    "clocks": [Clock(0.0, 0.0), *[Clock(0.002, 0.001)] * 3],
    "folders": [Folder("/logs", True, "", 1 << 40, True), *[Folder("/logs", True)] * 3],
    "devices": [Devices("gpu", "H", 2, 8, i, 4) for i in range(4)],
    "collectives": [Collective(1.0, 0.001, True)] * 4,
    "backends": [{"TensorBoardBackend": [], "WandbBackend": []}],
}


def changed(key: str, index: int, **fields: Any) -> list[Any]:
    """The good facts of a check, but for some fields of one process."""
    facts = list(GOOD[key])
    facts[index] = replace(facts[index], **fields)
    return facts


def judged(check: AbstractCheck[Any], facts: Sequence[Any]) -> list[Finding]:
    return list(check.judge(facts, HOSTS))


def only(check: AbstractCheck[Any], facts: Sequence[Any]) -> Finding:
    (finding,) = judged(check, facts)
    return finding


def shown(check: AbstractCheck[Any], facts: Sequence[Any]) -> list[tuple[str, str | list[str]]]:
    return list(check.show(facts))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.key)
def test_nothing_is_wrong_in_a_good_launch(check: AbstractCheck[Any]):
    assert judged(check, GOOD[check.key]) == []


def test_a_launcher_that_counts_differently():
    finding = only(LaunchCheck(), changed("processes", 1, launch_index=5, launch_count=8))
    assert finding.level == "problem"
    assert finding.what.startswith("process 1 of 4 (host h1) was started by its launcher as")
    assert "process 5 of 8 (slurm: SLURM_PROCID=1)" in finding.what
    unknown = changed("processes", 1, launch_index=None, launch_count=None)
    assert judged(LaunchCheck(), unknown) == []
    explicit = changed("processes", 1, launch_index=5, launch_count=8, launcher="explicit")
    assert judged(LaunchCheck(), explicit) == []


def test_warnings_of_joining_and_a_process_alone_in_a_slurm_job():
    finding = only(LaunchCheck(), changed("processes", 2, notes=["waited 30 s"]))
    assert str(finding) == "process 2 of 4 (host h2): waited 30 s"
    why = "SLURM_JOB_ID=7, but no step of srun"
    alone = [
        replace(GOOD["processes"][0], launcher="solo", launch_count=1, why=why, start_with="srun")
    ]
    finding = only(LaunchCheck(), alone)
    assert finding.level == "warning" and "`srun`" in finding.fix and why in finding.what


def test_an_unknown_launcher_and_a_proxy_are_named():
    first = GOOD["processes"][0]
    alone = [replace(first, launcher="solo", launch_count=1, hint="NNODES=2", variables="NNODES=2")]
    finding = only(LaunchCheck(), alone)
    assert finding.level == "warning"
    assert finding.what == "this is a single process, but NNODES=2 looks like one of several"
    assert dict(shown(LaunchCheck(), alone))["variables"] == "NNODES=2"
    finding = only(LaunchCheck(), changed("processes", 0, no_grpc_proxy="example.org,h0"))
    assert finding.level == "hint" and "set no_grpc_proxy=example.org,h0" in finding.fix


def test_nothing_that_ends_another_program_is_advised():
    for path in Path(lerax_dist.__file__).parent.rglob("*.py"):
        assert not re.search(
            r"\b([Kk]ill|[Ee]nd|[Tt]erminate) (the|that|another) (program|process)"
            r" that (has|holds|uses)",
            path.read_text(),
        ), path


def test_the_launch_is_shown_with_its_coordinator():
    seen = dict(shown(LaunchCheck(), changed("processes", 0, coordinator="h0:12")))
    assert seen["process"] == ["0", "1", "2", "3"]
    assert seen["host"] == HOSTS
    assert seen["launch"] == "4 processes on 4 hosts; slurm: SLURM_PROCID=0"
    assert seen["coordinator"] == "h0:12"
    alone = dict(shown(LaunchCheck(), GOOD["processes"][:1]))
    assert str(alone["launch"]).startswith("one process; ") and "coordinator" not in alone


def test_versions_that_differ_name_who_has_which():
    facts = [VERSIONS, VERSIONS, VERSIONS | {"jax": "0.9.0"}, VERSIONS]
    finding = only(VersionsCheck(), facts)
    assert finding.level == "problem"
    assert finding.what == (
        "jax differs: 0.10.2 on processes 0 (host h0), 1 (host h1), 3 (host h3), "
        "0.9.0 on process 2 (host h2)"
    )
    missing = [VERSIONS, VERSIONS | {"jax": None}, VERSIONS, VERSIONS]
    assert only(VersionsCheck(), missing).what.endswith("not installed on process 1 (host h1)")
    python = [VERSIONS, VERSIONS | {"python": "3.12"}, VERSIONS, VERSIONS]
    assert only(VersionsCheck(), python).level == "warning"


def test_only_a_version_that_differs_has_a_column():
    assert dict(shown(VersionsCheck(), [VERSIONS] * 2)) == {
        "versions": "python 3.11.7, jax 0.10.2, numpy 2.4.6, the same everywhere"
    }
    assert dict(shown(VersionsCheck(), [VERSIONS, VERSIONS | {"jax": "0.9.0"}])) == {
        "jax": ["0.10.2", "0.9.0"],
        "versions": "python 3.11.7, numpy 2.4.6, the same everywhere",
    }


@pytest.mark.parametrize(
    ("offset", "bound", "level"),
    [(4.2, 0.01, "problem"), (-4.2, 0.01, "problem"), (4.2, 4.0, None), (0.9, 0.0, None)],
)
def test_skew_counts_as_far_as_it_is_certain(offset: float, bound: float, level: str | None):
    findings = judged(ClocksCheck(), changed("clocks", 3, offset=offset, bound=bound))
    assert [finding.level for finding in findings] == [level] * (level is not None)
    if findings:
        seen = f"clock skew of process 3 (host h3) is {offset:+.1f} s against process 0"
        assert findings[0].what.startswith(seen) and "chrony" in findings[0].fix


def test_clocks_are_shown_in_a_unit_that_fits():
    facts = [Clock(0.0, 0.0), Clock(0.002, 0.001), Clock(-4.2, 0.01)]
    assert shown(ClocksCheck(), facts) == [
        ("clock", ["reference", "+2.0 ms ±1.0", "-4.20 s ±0.01"])
    ]
    assert shown(ClocksCheck(), facts[:1]) == []


def test_a_folder_that_is_not_the_same():
    other = changed("folders", 1, path="/home/logs", seen=False, why="not there")
    finding = only(LogFolderCheck(), other)
    assert finding.what == (
        "process 1 (host h1) cannot see the log folder of process 0: it looks in /home/logs, "
        "process 0 writes to /logs (not there)"
    )
    assert finding.level == "problem" and "absolute" in finding.fix
    finding = only(LogFolderCheck(), changed("folders", 1, seen=False, why="not there"))
    assert finding.fix.startswith("mount that folder on every host")


def test_a_folder_that_cannot_be_written_is_one_problem():
    facts = changed("folders", 1, seen=False)
    facts[0] = Folder("/logs", False, "Read-only file system")
    finding = only(LogFolderCheck(), facts)
    assert finding.level == "problem"
    assert "cannot write to the log folder /logs (Read-only file system)" in finding.what


def test_a_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    context = SimpleNamespace(
        log_dir="~/logs",
        group=SimpleNamespace(is_writer=True),
        broadcast=lambda value, what: value,
        gather=lambda value, what: [value],
    )
    folder = LogFolderCheck().collect(cast(Any, context))
    assert (folder.path, folder.seen) == (str(tmp_path / "logs"), True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "level", "size"),
    [(10 << 20, "problem", "10 MiB"), (1 << 30, "warning", "1.0 GiB"), (None, None, "")],
)
def test_space_on_the_disk(free: int | None, level: str | None, size: str):
    findings = judged(LogFolderCheck(), changed("folders", 0, free=free))
    assert [finding.level for finding in findings] == [level] * (level is not None)
    assert all(f"/logs has only {size} free" in finding.what for finding in findings)


def test_a_file_system_without_locks():
    finding = only(LogFolderCheck(), changed("folders", 0, locks=False))
    assert finding.level == "warning" and "not detected" in finding.what


def test_who_writes_and_who_sees_the_folder_is_shown():
    assert shown(LogFolderCheck(), changed("folders", 1, seen=False)) == [
        ("log folder", ["writes", "NOT SEEN", "seen", "seen"]),
        ("log folder", "/logs, 1024.0 GiB free"),
    ]
    facts = [Folder("/logs", False, "full"), Folder("/logs", False)]
    assert shown(LogFolderCheck(), facts) == [
        ("log folder", ["CANNOT WRITE", "NOT SEEN"]),
        ("log folder", "/logs"),
    ]


def test_devices_that_are_missing_twice_or_unlike():
    check = DevicesCheck()
    shared = [replace(one, total=6) for one in GOOD["devices"]]
    assert "JAX sees 6 devices in all, but the processes have 8" in only(check, shared).what
    findings = judged(check, changed("devices", 3, platform="cpu", kind="cpu"))
    assert "cpu on process 3 (host h3)" in findings[0].what
    assert only(check, changed("devices", 3, kind="A")).level == "warning"
    uneven = [replace(one, local=1 if i == 3 else 2, total=7) for i, one in enumerate(shared)]
    assert only(check, uneven).what.startswith("the number of devices differs: 2 on processes 0")
    apart = judged(check, changed("devices", 3, jax_index=0, jax_count=1))
    assert apart[0].what == ("process 3 (host h3) is process 0 of 1 in JAX, but 4 processes joined")


def test_jax_platforms_without_the_cpu_is_a_problem():
    finding = only(DevicesCheck(), changed("devices", 1, asked="cuda"))
    assert finding.level == "problem"
    assert finding.what.startswith("JAX_PLATFORMS=cuda on process 1 (host h1) disables JAX's CPU")
    assert finding.fix == "set JAX_PLATFORMS=cuda,cpu"
    assert judged(DevicesCheck(), changed("devices", 1, asked="cuda,cpu")) == []


def test_a_gpu_that_was_asked_for_and_not_found_is_a_warning():
    cpus = [Devices("cpu", "cpu", 2, 8, i, 4, "cuda,cpu") for i in range(4)]
    finding = only(DevicesCheck(), cpus)
    assert finding.level == "warning"
    assert finding.what.startswith("JAX_PLATFORMS=cuda,cpu asks for cuda first, but processes 0 ")
    assert judged(DevicesCheck(), [replace(each, asked="cpu") for each in cpus]) == []


def test_devices_that_fail_hide_those_that_time_out_waiting_for_them():
    failed, late = Devices(error="no driver"), Devices(error="timed out after 6 s", late=True)
    finding = only(DevicesCheck(), [late, failed])
    assert finding.what == "process 1 (host h1) cannot start its devices (no driver)"
    finding = only(DevicesCheck(), [late, late])
    assert finding.what == (
        "processes 0 (host h0), 1 (host h1) cannot start its devices (timed out after 6 s)"
    )


def test_devices_are_shown_for_each_process_and_for_all():
    assert shown(DevicesCheck(), GOOD["devices"]) == [
        ("devices", ["2 gpu"] * 4),
        ("devices", "8 gpu (H) in all"),
    ]
    mixed = [Devices("gpu", "H", 2, 4, 0, 2), Devices("gpu", "A", 1, 4, 1, 2)]
    assert shown(DevicesCheck(), mixed) == [
        ("devices", ["2 gpu H", "1 gpu A"]),
        ("devices", "4 gpu (H), gpu (A) in all, BUT the processes have 3 together"),
    ]
    failed = [Devices(error="no driver"), Devices(error="timed out", late=True)]
    assert shown(DevicesCheck(), failed) == [
        ("devices", ["FAILED", "NOT STARTED"]),
        ("devices", "none started"),
    ]


def test_collectives_that_fail_or_are_wrong_name_the_process():
    check = CollectiveCheck()
    finding = only(check, changed("collectives", 1, error="timed out after 30 s", late=True))
    assert finding.level == "problem"
    assert finding.what == (
        "a collective over all devices failed (timed out after 30 s) on process 1 (host h1)"
    )
    assert "gave a wrong sum" in only(check, changed("collectives", 1, right=False)).what
    assert shown(check, GOOD["collectives"]) == [
        ("sum over all", "the first 1.00 s, then 1.00 ms each")
    ]


def test_many_processes_are_not_all_named():
    hosts = [f"h{i}" for i in range(40)]
    (finding,) = CollectiveCheck().judge([Collective(error="gone")] * 40, hosts)
    assert "15 (host h15) and 24 more" in finding.what


def test_backends_are_asked_on_process_0(monkeypatch: pytest.MonkeyPatch):
    problems = [SetupProblem("warning", "no API key", "run `wandb login`")]
    asked: list[float] = []

    def check_setup(cls: type[AbstractLoggingBackend], timeout: float) -> list[SetupProblem]:
        asked.append(timeout)
        return problems

    monkeypatch.setattr(NoOpBackend, "check_setup", classmethod(check_setup))
    monkeypatch.setattr("lerax_dist.backends.ALL_BACKENDS", (NoOpBackend,))
    context = Context(detect({}), SoloGroup(), "logs", 1.0)
    facts = BackendsCheck().collect(context)
    assert facts is not None and len(asked) == 1
    assert only(BackendsCheck(), [facts]) == Finding("warning", "no API key", "run `wandb login`")
    assert shown(BackendsCheck(), [facts]) == [
        ("backends", "none ready; see below for NoOpBackend")
    ]
    assert shown(BackendsCheck(), GOOD["backends"]) == [
        ("backends", "TensorBoardBackend, WandbBackend ready")
    ]
