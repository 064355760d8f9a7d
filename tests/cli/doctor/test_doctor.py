"""Real launches of `lerax-dist doctor`: what process 0 prints, and that all end alike."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.backends.console.terminal import Terminal
from tests.multiprocess.launch import Result, launch

WORKER = Path(__file__).parents[1] / "workers" / "doctored.py"


def doctor(tmp_path: Path, *args: str, how: str = "as it is", **options: Any) -> list[Result]:
    arguments = ["doctor", "--json", *args]
    if how == "as it is":
        script = [Path("-m"), "lerax_dist.cli", *arguments]
    else:
        script = [WORKER, how, *arguments]
    return launch(*script, cwd=tmp_path, check=False, **options)


def reported(results: list[Result]) -> dict[str, Any]:
    """What process 0 printed; it is all that was printed."""
    assert [result.stdout for result in results[1:]] in (
        [""] * len(results[1:]),
        [results[0].stdout] * len(results[1:]),  # `mpirun` has one output for all
    )
    return json.loads(results[0].stdout)


def problems(report: dict[str, Any]) -> list[str]:
    assert report["ok"] == (not report["problems"])
    return [problem["what"] for problem in report["problems"]]


@pytest.mark.parametrize("launcher", ["openmpi", "explicit"])
def test_a_good_launch_is_ok_and_said_once(tmp_path: Path, launcher: Any):
    results = doctor(tmp_path, processes=2, devices=2, launcher=launcher)
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    report = reported(results)
    assert problems(report) == []
    facts = report["facts"]
    assert [process["index"] for process in facts["processes"]] == [0, 1]
    assert {process["launcher"] for process in facts["processes"]} == {launcher}
    assert facts["processes"][0]["coordinator"].startswith("127.0.0.1:")
    assert [(one["local"], one["total"]) for one in facts["devices"]] == [(2, 4), (2, 4)]
    assert all(one["right"] and one["first"] > one["warm"] > 0 for one in facts["collectives"])
    # One machine has one clock, and the bound holds for what is known of it.
    assert all(abs(clock["offset"]) <= clock["bound"] + 1e-6 for clock in facts["clocks"])
    assert facts["clocks"][1]["bound"] < 0.5
    assert [folder["seen"] for folder in facts["folders"]] == [True, True]
    assert {folder["path"] for folder in facts["folders"]} == {str(tmp_path / "logs")}
    assert facts["folders"][0]["free"] > 0
    assert len({tuple(versions.items()) for versions in facts["versions"]}) == 1
    (backends,) = facts["backends"]
    assert backends["TensorBoardBackend"] == []
    assert list(tmp_path.iterdir()) == []  # nothing stays, not even the folder it made


def test_folders_and_clocks_that_differ_are_problems(waits: dict[str, list[Result]]):
    results = waits["elsewhere"]
    assert [result.returncode for result in results] == [1, 1]
    report = reported(results)
    skew, folder = problems(report)
    here, there = (one["path"] for one in report["facts"]["folders"])
    assert here.endswith("/process0/logs") and there.endswith("/process1/logs")
    assert folder.startswith("process 1 (host ")
    assert f"it looks in {there}, process 0 writes to {here}" in folder
    assert "clock skew of process 1 (host " in skew and "is +4.2 s against" in skew
    clock = report["facts"]["clocks"][1]
    assert abs(clock["offset"] - 4.2) <= clock["bound"] + 1e-4


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path):
    (tmp_path / "file").touch()
    (result,) = doctor(tmp_path, "--log-dir", "file/logs", launcher="solo")
    assert result.returncode == 1
    (problem,) = problems(reported([result]))
    assert "cannot write to the log folder" in problem and "Not a directory" in problem


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Launches that mostly wait, so they do it at the same time: how it went wrong to results."""
    plans = {
        "absent": (3, "6"),
        "collective": (2, "6"),
        "no_devices": (2, "4"),
        "elsewhere": (2, "30"),
    }
    with ThreadPoolExecutor() as pool:
        futures = {
            how: pool.submit(
                doctor,
                tmp_path_factory.mktemp(how),
                *("--timeout", limit),
                how=how,
                processes=processes,
                launcher="explicit",
            )
            for how, (processes, limit) in plans.items()
        }
        return {how: future.result() for how, future in futures.items()}


def test_a_process_that_does_not_arrive_is_named_by_all_others(waits: dict[str, list[Result]]):
    results = waits["absent"]
    # No SIGABRT, which is how JAX would end it.
    assert [result.returncode for result in results] == [1, 1, 0]
    (problem,) = problems(json.loads(results[0].stdout))
    assert "process 2 of 3 did not arrive at 127.0.0.1:" in problem
    assert results[1].stdout == ""
    assert "process 1 of 3: process 2 of 3 did not arrive at" in results[1].stderr


def test_a_collective_that_hangs_is_reported_with_all_other_facts(
    waits: dict[str, list[Result]],
):
    results = waits["collective"]
    assert [result.returncode for result in results] == [1, 1], results[1].stderr
    report = reported(results)
    (problem,) = problems(report)
    assert "a collective over all devices failed (timed out after 6 s) on processes 0" in problem
    assert report["facts"]["backends"][0]["TensorBoardBackend"] == []


def test_a_process_without_devices_is_named_and_those_that_wait_for_it_are_not(
    waits: dict[str, list[Result]],
):
    results = waits["no_devices"]
    assert [result.returncode for result in results] == [1, 1]
    (problem,) = problems(reported(results))
    assert "process 1 (host" in problem and "(no accelerator found)" in problem


def test_a_process_that_is_late_under_mpi_is_named(tmp_path: Path):
    results = doctor(tmp_path, "--timeout", "3", how="after_mpi", processes=2)
    assert results[0].returncode != 0
    (problem,) = problems(json.loads(results[0].stdout))
    assert "process 1 did not arrive" in problem


def test_a_process_that_never_starts_mpi_holds_no_other_for_ever(tmp_path: Path):
    results = doctor(tmp_path, "--timeout", "1", how="before_mpi", processes=2)
    assert results[0].returncode != 0
    (problem,) = problems(json.loads(results[0].stdout))
    assert "process 0 of 2 (openmpi: OMPI_" in problem and "timed out after 1 s" in problem
    assert "those that print nothing are missing" in problem


def test_variables_that_make_no_sense_are_a_problem(tmp_path: Path):
    (result,) = doctor(tmp_path, launcher="solo", env={"LERAX_DIST_PROCESS_ID": "1"})
    assert result.returncode == 1
    (problem,) = problems(json.loads(result.stdout))
    assert "`LERAX_DIST_COORDINATOR_ADDRESS`, `LERAX_DIST_NUM_PROCESSES` must be set" in problem


def test_one_process_with_a_server_of_wandb(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "WANDB_API_KEY": "0" * 40,
            "no_proxy": "127.0.0.1",
        }
        (result,) = doctor(tmp_path, launcher="solo", devices=3, env=variables)
        server.shutdown()
    report = reported([result])
    assert (result.returncode, problems(report), report["warnings"]) == (0, [], [])
    assert [one["local"] for one in report["facts"]["devices"]] == [3]
    assert report["facts"]["backends"][0]["WandbBackend"] == []
    assert len(asked) == 1
    assert list((tmp_path / "logs").iterdir()) == []


def test_the_table_is_whole_in_a_narrow_terminal(tmp_path: Path):
    folder = tmp_path / ("a_long_name_" * 6)
    terminal = Terminal(
        [sys.executable, "-m", "lerax_dist.cli", "doctor", "--log-dir", str(folder)],
        columns=80,
        rows=50,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "WANDB_MODE": "offline"},
    )
    assert terminal.finish() == 0
    lines = terminal.all_lines()
    assert lines[0].startswith("process  host")
    assert lines[-1] == "ok: a run would log correctly here"
    squeezed = "".join(line.strip() for line in lines)
    assert str(folder) in squeezed and "…" not in squeezed
