"""Where processes meet: the address that JAX takes, or none."""

import pytest

from lerax_dist.cluster import detect
from lerax_dist.cluster._meeting import first_node, meeting_point

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
    assert meeting_point(detect(environ), environ) == expected


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
    assert meeting_point(launch, environ) == GkeTpuCluster.get_coordinator_address(None, port)
    assert (launch.process_index, launch.process_count) == (
        GkeTpuCluster.get_process_id(),
        GkeTpuCluster.get_process_count(),
    )


@pytest.mark.parametrize(
    "environ", [SLURM, {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h0,h1"}]
)
def test_where_jax_is_told_an_address_it_is_that(environ: dict[str, str]):
    environ = environ | {"JAX_COORDINATOR_ADDRESS": "elsewhere:1"}
    assert meeting_point(detect(environ), environ) == "elsewhere:1"


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
    assert meeting_point(detect(environ), environ) is None


def test_by_hand_it_is_the_coordinator():
    environ = {
        "LERAX_DIST_COORDINATOR_ADDRESS": "h:12345",
        "LERAX_DIST_NUM_PROCESSES": "2",
        "LERAX_DIST_PROCESS_ID": "1",
    }
    assert meeting_point(detect(environ), environ) == "h:12345"
