"""The rendezvous: at which address, and over real sockets.

Each process is a thread here, as only addresses matter.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lerax_dist.cluster import Launch, detect, rendezvous_address
from lerax_dist.cluster._rendezvous import (
    _arrive,
    _coordinate,
    _describe_process,
    coordinator_host,
    rendezvous,
    reserved_port,
)
from lerax_dist.cluster.launchers._slurm import first_node

SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "n[007-015,20],m1",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "0",
}


@pytest.mark.parametrize("nodes", ["n1", "n1,m2", "n[1-3]", "n[007-015],m1", "gpu-a[12,14-15]"])
@pytest.mark.parametrize("port", [None, "23451"])
def test_under_slurm_it_is_the_address_that_jax_takes(
    nodes: str, port: str | None, monkeypatch: pytest.MonkeyPatch
):
    from jax._src.clusters.slurm_cluster import SlurmCluster

    environ = SLURM | {"SLURM_STEP_NODELIST": nodes}
    if port is not None:
        environ["JAX_COORDINATOR_PORT"] = port
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    expected = SlurmCluster.get_coordinator_address(None, port)
    assert rendezvous_address(detect(environ), environ) == expected


def test_first_node_of_a_single_one_in_brackets():
    assert first_node("n[7]") == "n7"
    assert first_node("") == ""


@pytest.mark.parametrize(
    "environ",
    [
        {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h0,h1"},
        {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h0,h1", "JAX_COORDINATOR_PORT": "23451"},
        {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "x,y", "TPU_PROCESS_ADDRESSES": "h0:1,h1:1"},
        {
            **{"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h2,h3", "MEGASCALE_SLICE_ID": "1"},
            **{"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080"},
        },
    ],
)
def test_on_a_tpu_pod_of_kubernetes_it_is_the_address_that_jax_takes(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    from jax._src.clusters.cloud_tpu_cluster import GkeTpuCluster

    # JAX asks the metadata server for what is not set, and waits until the name is known.
    for name in ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.setenv(name, "")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(GkeTpuCluster, "wait_for_coordinator", lambda address, seconds: None)
    launch = detect(environ)
    port = environ.get("JAX_COORDINATOR_PORT")
    assert rendezvous_address(launch, environ) == GkeTpuCluster.get_coordinator_address(None, port)
    assert (launch.process_index, launch.process_count) == (
        GkeTpuCluster.get_process_id(),
        GkeTpuCluster.get_process_count(),
    )


@pytest.mark.parametrize(
    "environ", [SLURM, {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h0,h1"}]
)
def test_an_address_that_is_given_to_jax_is_taken(environ: dict[str, str]):
    environ = environ | {"JAX_COORDINATOR_ADDRESS": "elsewhere:1"}
    assert rendezvous_address(detect(environ), environ) == "elsewhere:1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"},
        {"TPU_ML_PLATFORM": "JAX"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        SLURM | {"JAX_COORDINATOR_BIND_ADDRESS": "0.0.0.0:1"},
        {k: v for k, v in SLURM.items() if k != "SLURM_JOB_ID"},
    ],
)
def test_where_no_address_is_known_there_is_none(environ: dict[str, str]):
    assert rendezvous_address(detect(environ), environ) is None


def test_by_hand_it_is_the_coordinator():
    environ = {
        "LERAX_DIST_COORDINATOR_ADDRESS": "h:12345",
        "LERAX_DIST_NUM_PROCESSES": "2",
        "LERAX_DIST_PROCESS_ID": "1",
    }
    assert rendezvous_address(detect(environ), environ) == "h:12345"


@pytest.mark.parametrize(
    "environ",
    [
        {"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"},
        {"PALS_RANKID": "1", "PMI_RANK": "1", "PMI_SIZE": "2"},
    ],
)
def test_under_flux_and_pals_it_is_the_address_that_is_given_to_jax(environ: dict[str, str]):
    assert rendezvous_address(detect(environ), environ) is None
    environ = environ | {"JAX_COORDINATOR_ADDRESS": "h:12345"}
    assert rendezvous_address(detect(environ), environ) == "h:12345"


@pytest.mark.parametrize(
    ("hosts", "local_count", "expected"),
    [
        (["n0", "n0"], 2, "127.0.0.1"),
        (["n0", "n0"], None, "127.0.0.1"),
        (["n0", "n1"], 1, "n0"),
        (["box", "box"], 1, "box"),  # containers on two hosts, all of one name
    ],
)
def test_coordinator_is_where_all_can_reach_it(
    hosts: list[str], local_count: int | None, expected: str
):
    assert coordinator_host(hosts, Launch("openmpi", 0, 2, 0, local_count, None, "")) == expected


def test_reserved_port_is_taken_until_the_block_ends():
    with reserved_port() as port:
        with pytest.raises(OSError, match="`coordinator_address` needs a port that is free"):
            rendezvous(0, 1, f"127.0.0.1:{port}", timeout=1)
    rendezvous(0, 1, f"127.0.0.1:{port}", timeout=1)


def meet(processes: Sequence[tuple[int, int]], timeout: float) -> list[str]:
    """A rendezvous of processes with these indices and counts; what each of them raised."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return meet_at(address, processes, timeout)


def meet_at(address: str, processes: Sequence[tuple[int, int]], timeout: float) -> list[str]:
    errors = [""] * len(processes)

    def arrive(number: int, index: int, count: int) -> None:
        try:
            rendezvous(index, count, address, timeout)
        except (TimeoutError, RuntimeError, OSError) as error:
            errors[number] = f"{type(error).__name__}: {error}"

    threads = [
        threading.Thread(target=arrive, args=(number, *process))
        for number, process in enumerate(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_all_are_there():
    assert meet([(2, 3), (1, 3), (0, 3)], timeout=30) == [""] * 3


def test_missing_processes_are_named_to_all():
    errors = meet([(0, 5), (2, 5), (4, 5)], timeout=3)
    for error in errors:
        assert error.startswith("TimeoutError: processes 1, 3 of 5 did not arrive at 127.0.0.1:")
        assert "(the 3 that did are on " in error


def test_without_process_0_the_others_time_out():
    (error,) = meet([(1, 2)], timeout=1)
    assert "process 0 could not be reached at 127.0.0.1:" in error
    assert "Connection refused" in error


def test_a_program_that_scans_ports_does_not_count():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    errors = [""]

    def wait() -> None:
        try:
            rendezvous(0, 2, f"127.0.0.1:{address[1]}", 20)
        except (TimeoutError, RuntimeError, OSError) as error:
            errors[0] = str(error)

    first = threading.Thread(target=wait)
    first.start()
    while True:
        try:
            with socket.create_connection(address) as stranger:
                stranger.sendall(b"GET / HTTP/1.0\n")
                break
        except ConnectionRefusedError:
            continue
    rendezvous(1, 2, f"127.0.0.1:{address[1]}", 20)
    first.join(60)
    assert errors == [""]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_process_of_another_launch_is_refused_alone(caplog: pytest.LogCaptureFixture):
    address, job = free_address(), "SLURM_JOB_ID=7 SLURM_STEP_ID="
    errors: list[str] = []
    first = threading.Thread(target=rendezvous, args=(0, 2, address, 60, job + "1"))
    first.start()
    for identity in (job + "0", "", job + "1 LERAX_DIST_LAUNCH_ID=lerax-dist doctor"):
        with pytest.raises(RuntimeError) as refused:
            rendezvous(1, 2, address, 60, identity)
        errors.append(str(refused.value))
    rendezvous(1, 2, address, 60, job + "1")
    first.join(60)
    assert not first.is_alive()
    words = f"(pid {os.getpid()}) is refused at {address}: it belongs to the launch {job}0, but pro"
    assert words in errors[0]
    assert "it belongs to a launch without an id, but process 0" in errors[1]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert caplog.messages[0].endswith("The other processes are waited for.")


@pytest.mark.parametrize("other", ["other.py", "train.py"])
def test_where_nothing_tells_launches_apart_another_command_or_folder_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    other: str,
):
    lines = []
    for index, argv in enumerate(
        (
            ["train.py", "--process-id", "0", "--host=n0"],
            ["train.py", "--process-id", "1", "--host=n1"],
            [other, "--process-id", "2", "--token=secret"],
        )
    ):
        monkeypatch.setattr("sys.argv", argv)
        if index == 2 and other == "train.py":
            monkeypatch.chdir(tmp_path)
        lines.append(_describe_process(index, 3, ""))
    address, deadline = free_address(), time.monotonic() + 60
    threads = [
        threading.Thread(target=work, args=(line, address, deadline, 60))
        for line, work in zip(lines, (_coordinate, _arrive, _arrive), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (warning,) = caplog.messages
    assert f"process 2 on {socket.gethostname()} (pid " in warning
    assert f"runs {other} in {os.getcwd()}, and process 0 train.py in " in warning
    assert "set LERAX_DIST_LAUNCH_ID on all processes" in warning
    assert "secret" not in str(lines)


def test_an_index_given_twice_is_not_reported_as_missing():
    errors = meet([(0, 3), (1, 3), (1, 3)], timeout=20)
    for error in errors:
        assert "two processes are process 1 of 3: one on " in error


def test_a_process_of_a_launch_of_another_size_is_named():
    errors = meet([(0, 3), (1, 2)], timeout=20)
    for error in errors:
        assert "belongs to a launch of 2 processes, this one has 3" in error


def test_a_port_in_use_is_an_error():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (error,) = meet_at(address, [(0, 2)], timeout=1)
    assert error.startswith("OSError: ") and "free on process 0, got '127.0.0.1:" in error
    assert "perhaps a training that runs. Choose another port" in error
