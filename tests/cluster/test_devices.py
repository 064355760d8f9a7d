"""Which devices of its host a process takes."""

import pytest

from lerax_dist.cluster import Launch, choose_local_devices, detect
from lerax_dist.cluster._devices import with_local_index


@pytest.mark.parametrize(
    ("local_index", "local_count", "environ", "devices"),
    [
        pytest.param(1, 4, {}, [1], id="one each"),
        pytest.param(0, 4, {}, [0], id="the first too"),
        pytest.param(0, 1, {}, None, id="alone on the host"),
        pytest.param(1, None, {}, None, id="count unknown"),
        pytest.param(None, None, {}, None, id="nothing known"),
        pytest.param(1, 4, {"CUDA_VISIBLE_DEVICES": "3"}, None, id="narrowed"),
        pytest.param(1, 4, {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, None, id="narrowed by id"),
        pytest.param(1, 4, {"CUDA_VISIBLE_DEVICES": ""}, None, id="no GPU"),
        pytest.param(1, 4, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [1], id="the host's list"),
        pytest.param(1, 4, {"ROCR_VISIBLE_DEVICES": "1"}, None, id="rocm"),
        pytest.param(1, 4, {"HIP_VISIBLE_DEVICES": "1"}, None, id="hip"),
        pytest.param(1, 4, {"JAX_LOCAL_DEVICE_IDS": "2,3"}, None, id="jax's own variable"),
    ],
)
def test_devices_of_a_process(
    local_index: int | None,
    local_count: int | None,
    environ: dict[str, str],
    devices: list[int] | None,
):
    launch = Launch("openmpi", 1, 4, local_index, local_count, None, "")
    assert choose_local_devices(launch, environ) == devices


@pytest.mark.parametrize(
    ("local_count", "visible", "on_node", "devices"),
    [
        pytest.param(1, "0,1", "2", None, id="alone"),
        pytest.param(2, "0,1", "2", [1], id="shared"),
        pytest.param(2, "1", "2", None, id="own one"),
        pytest.param(2, "2,3", "4", None, id="own two"),
        pytest.param(2, None, None, [1], id="unknown"),
        pytest.param(2, "0,1", "many", [1], id="malformed"),
    ],
)
def test_devices_of_a_process_under_slurm(
    local_count: int, visible: str | None, on_node: str | None, devices: list[int] | None
):
    step = {
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
        "SLURM_STEP_TASKS_PER_NODE": f"{local_count}(x{4 // local_count})",
        "CUDA_VISIBLE_DEVICES": visible,
        "SLURM_GPUS_ON_NODE": on_node,
    }
    environ = {name: value for name, value in step.items() if value is not None}
    assert choose_local_devices(detect(environ), environ) == devices


def test_a_local_index_that_the_launcher_does_not_say_is_found_by_the_hosts():
    hosts = ["a", "b", "a", "b", "b"]
    launch = Launch("mpich", 3, 5, None, None, None, "")
    found = with_local_index(launch, hosts)
    assert (found.local_index, found.local_count) == (1, 3)
    # Open MPI 5 numbers the processes of a host in another order.
    given = Launch("openmpi", 3, 5, 0, 3, None, "")
    assert with_local_index(given, hosts) == given
