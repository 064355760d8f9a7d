"""What is beside the processes of a launch: their children, proxies, and who never arrives."""

import ast
import socket
import time
from pathlib import Path

import pytest

from tests.multiprocess.launch import launch
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
