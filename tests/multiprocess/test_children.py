"""What is beside the processes of a launch: their children, proxies, and who never arrives."""

import ast
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.multiprocess.launch import free_port, launch
from tests.multiprocess.test_initialize import needs_mpich

WORKERS = Path(__file__).parent / "workers"


@pytest.mark.parametrize("launcher", [pytest.param("openmpi", marks=pytest.mark.full), "explicit"])
def test_a_child_of_a_joined_process_is_told_at_once_what_it_is(launcher, tmp_path: Path):
    results = launch(
        *(WORKERS / "children.py", "train", str(tmp_path)), processes=2, launcher=launcher
    )
    found = results[0].report
    child, forked = (ast.literal_eval(found[way].splitlines()[-1]) for way in ("child", "forked"))
    for errors, whose in ((child, f"process 0 of 2 ({launcher}: "), (forked, "process 0 of 2")):
        for error in (errors["initialize"], errors["logger"]):
            assert error.startswith("RuntimeError: This process (pid ")
            assert f"is a child of pid {found['pid']}, {whose}" in error
            assert "pass `group=SoloGroup()`" in error
        assert errors["alone"] == ""
    assert {path.name for path in tmp_path.glob("logs/*")} == {"own", "forked"}
    # A doctor there says so, too. One beside the training says that, and none how to end it.
    inside, *beside = found["doctors"]
    (problem,) = json.loads(inside)["problems"]
    assert f"is a child of pid {found['pid']}, process 0 of 2 ({launcher}: " in problem["what"]
    for text in found["doctors"]:
        assert not re.search(r"\b(kill|stop|terminate|abort|(?<!at the )end)\b", text.lower()), text
    if launcher == "explicit":
        assert "perhaps a training that runs. Choose another port" in beside[0]
        assert "what listens there is not process 0 of a launch that starts" in beside[1]


@pytest.mark.parametrize(("how", "launcher"), [("exec", "explicit"), ("mpirun", "openmpi")])
def test_a_restart_by_exec_and_a_launch_inside_are_no_children(how, launcher, tmp_path: Path):
    results = launch(*(WORKERS / "again.py", how, str(tmp_path)), processes=2, launcher=launcher)
    found = [result.report for result in results]
    assert [each["count"] for each in found] == [2, 2]
    if how == "exec":
        assert {each["how"] for each in found} == {"again"}
        # The same processes.
        assert {path.name for path in tmp_path.iterdir()} == {str(each["pid"]) for each in found}
    else:
        assert found[0]["inside"]["returncode"] == 0, found[0]["inside"]
        assert found[0]["inside"]["counts"] == [2, 2]


def test_a_process_left_over_from_a_dead_launch_is_refused_and_the_new_one_goes_on(tmp_path: Path):
    address = f"127.0.0.1:{free_port()}"

    def start(launch_id: str, index: int):
        variables = {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": "2", "PROCESS_ID": str(index)}
        env = {f"LERAX_DIST_{name}": value for name, value in variables.items()}
        return launch(
            *(WORKERS / "again.py", "again", str(tmp_path)),
            launcher="solo",
            env=env | {"LERAX_DIST_LAUNCH_ID": launch_id},
            check=False,
        )[0]

    with ThreadPoolExecutor() as pool:
        # Its process 0 is gone, and it tries to reach it until its timeout.
        left = pool.submit(start, "of monday", 1)
        first = pool.submit(start, "of tuesday", 0)
        error = left.result().stderr.splitlines()[-1]
        second = start("of tuesday", 1)
    (pid,) = {path.name for path in tmp_path.iterdir()} - {
        str(result.report.get("pid")) for result in (first.result(), second)
    }
    assert left.result().returncode == 1
    for text in (error, first.result().stderr):
        assert f"process 1 on {socket.gethostname()} (pid {pid}) is refused at {address}" in text
        assert "the launch LERAX_DIST_LAUNCH_ID=of monday, but process 0 (pid " in text
    assert "Two launches need two ports" in error
    assert [result.report.get("count") for result in (first.result(), second)] == [2, 2]


@pytest.mark.parametrize(
    "launcher", ["openmpi", pytest.param("mpich", marks=[needs_mpich, pytest.mark.full])]
)
def test_the_timeout_holds_while_mpi_starts(launcher):
    start = time.monotonic()
    results = launch(*(WORKERS / "absent_mpi.py", "4"), processes=2, launcher=launcher, check=False)
    assert time.monotonic() - start < 60
    assert results[0].returncode != 0
    name = f"lerax_dist: process 0 of 2 ({'openmpi: OMPI_' if launcher == 'openmpi' else 'mpich'}"
    stderr = results[0].stderr
    assert f"{name}" in stderr
    assert "has waited 2 s for the others in MPI_Init; timeout: 4 s" in stderr
    assert "timed out after 4 s in MPI_Init" in stderr


def test_a_proxy_does_not_get_the_messages_to_the_coordinator():
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        results = launch(
            *(WORKERS / "launched.py", "logs"),
            processes=2,
            launcher="explicit",
            env={"https_proxy": url, "http_proxy": url, "no_proxy": "example.org"},
            check=False,
        )
        assert [result.report.get("count") for result in results] == [2, 2], results[0].stderr
        proxy.settimeout(0.01)
        with pytest.raises(TimeoutError):
            proxy.accept()
    assert "set no_grpc_proxy=example.org,127.0.0.1" in results[0].stdout
