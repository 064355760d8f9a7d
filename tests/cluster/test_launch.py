"""Environments as launchers leave them, and what is read from each."""

import pytest

from lerax_dist.cluster import Launch, choose_local_devices, detect
from lerax_dist.cluster._devices import with_local_place

_SLURM_JOB = {
    "SLURM_JOB_ID": "71",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_NTASKS": "4",
    "SLURM_NPROCS": "4",
}
# What every rank of `mpirun -n 4` inside an allocation carries: the daemons go through srun.
_MPIRUN_DAEMON = {
    **_SLURM_JOB,
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_NODELIST": "n1",
}
_SRUN = {
    **_SLURM_JOB,
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
_OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "2",
}
_HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
_EXPLICIT = {
    "LERAX_DIST_COORDINATOR_ADDRESS": "10.0.0.1:4444",
    "LERAX_DIST_NUM_PROCESSES": "3",
    "LERAX_DIST_PROCESS_ID": "2",
}
_GKE = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "h0,h1"}
_TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environ", "launcher", "place", "local"),
    [
        pytest.param({}, "solo", (0, 1), (0, 1), id="nothing"),
        pytest.param(_EXPLICIT, "explicit", (2, 3), (None, None), id="explicit"),
        pytest.param(
            _EXPLICIT | _OPENMPI | {"OMPI_COMM_WORLD_SIZE": "3"} | _MPIRUN_DAEMON,
            *("explicit", (2, 3), (None, None)),
            id="first",
        ),
        pytest.param(_OPENMPI, "openmpi", (2, 4), (1, 2), id="openmpi"),
        pytest.param(_OPENMPI | _MPIRUN_DAEMON, "openmpi", (2, 4), (1, 2), id="openmpi in salloc"),
        pytest.param(_HYDRA, "mpich", (2, 4), (1, 2), id="mpich"),
        pytest.param(_HYDRA | _MPIRUN_DAEMON, "mpich", (2, 4), (1, 2), id="mpich in salloc"),
        pytest.param({"PMI_RANK": "0", "PMI_SIZE": "2"}, "mpich", (0, 2), (None, None), id="pmi"),
        pytest.param(
            {"PMI_RANK": "3", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "2"},
            *("mpich", (3, 8), (1, 2)),
            id="pals",
        ),
        pytest.param(_SRUN, "slurm", (3, 4), (1, 2), id="srun"),
        pytest.param(
            _SRUN | {"PMI_RANK": "3", "PMI_SIZE": "4"}, "slurm", (3, 4), (1, 2), id="srun pmi2"
        ),
        pytest.param(
            # One rank on each of 4 nodes: the daemons' places happen to be those of the ranks.
            _SRUN | {**_HYDRA, "PMI_RANK": "3", "MPI_LOCALNRANKS": "1", "MPI_LOCALRANKID": "0"},
            *("mpich", (3, 4), (0, 1)),
            id="mpich in salloc, a rank a node",
        ),
        pytest.param(_SRUN | {"PMIX_RANK": "3"}, "slurm", (3, 4), (1, 2), id="srun pmix"),
        pytest.param(
            _SRUN | {"SLURM_NTASKS": "64"}, "slurm", (3, 4), (1, 2), id="step of a larger job"
        ),
        pytest.param(
            _SRUN | {"SLURM_STEP_TASKS_PER_NODE": "3,1"}, "slurm", (3, 4), (1, 1), id="uneven"
        ),
        pytest.param(
            _SRUN | {"SLURM_STEP_TASKS_PER_NODE": "?"}, "slurm", (3, 4), (1, None), id="unreadable"
        ),
        pytest.param(
            _SLURM_JOB | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
            *("solo", (0, 1), (0, 1)),
            id="batch script without srun",
        ),
        pytest.param(_SLURM_JOB, "solo", (0, 1), (0, 1), id="salloc without srun"),
        pytest.param(
            _SRUN
            | {
                "SLURM_PROCID": "0",
                "SLURM_STEP_ID": "4294967290",
                "SLURM_STEP_NUM_TASKS": "1",
                "SLURM_STEP_NODELIST": "n1",
            },
            *("solo", (0, 1), (0, 1)),
            id="interactive step",
        ),
        pytest.param(_GKE, "tpu", (1, 2), (0, 1), id="gke"),
        pytest.param(
            _GKE | {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
            *("tpu", (3, 4), (0, 1)),
            id="gke slices",
        ),
        pytest.param(
            _GKE | {"MEGASCALE_NUM_SLICES": "", "MEGASCALE_SLICE_ID": ""},
            *("tpu", (1, 2), (0, 1)),
            id="gke slices empty",
        ),
        pytest.param(
            _GKE | {"TPU_PROCESS_ADDRESSES": "h0:1,h0:2,h1:1,h1:2"},
            *("tpu", (1, 4), (0, 1)),
            id="gke processes",
        ),
        pytest.param(
            {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
            *("tpu", (0, 1), (0, 1)),
            id="one tpu host",
        ),
        pytest.param({"TPU_ML_PLATFORM": "JAX"}, "tpu", (None, None), (0, 1), id="gce"),
        pytest.param(
            {"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"},
            *("solo", (0, 1), (0, 1)),
            id="gce without chips",
        ),
        pytest.param(_TORCHRUN, "torchrun", (3, 4), (1, 2), id="torchrun"),
        pytest.param(
            _TORCHRUN | _SLURM_JOB | {"SLURM_PROCID": "0"},
            *("torchrun", (3, 4), (1, 2)),
            id="torchrun in a batch script",
        ),
        pytest.param(
            _TORCHRUN | _OPENMPI | {"RANK": "2"}, "openmpi", (2, 4), (1, 2), id="openmpi and RANK"
        ),
        pytest.param(
            # Two agents of `srun`, two workers of each.
            _TORCHRUN
            | {"TORCHELASTIC_RUN_ID": "7"}
            | _SRUN
            | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            *("torchrun", (3, 4), (1, 2)),
            id="torchrun in srun",
        ),
        pytest.param(
            {"JAX_COORDINATOR_ADDRESS": "h0:1"}, "jax", (None, None), (None, None), id="address"
        ),
        pytest.param({"RANK": "captain"}, "solo", (0, 1), (0, 1), id="RANK alone"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"},
            *("kubernetes", (2, None), (None, None)),
            id="kubernetes",
        ),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "solo", (0, 1), (0, 1), id="any pod"),
    ],
)
def test_launch_is_read_from_the_environment(
    environ: dict[str, str],
    launcher: str,
    place: tuple[int | None, int | None],
    local: tuple[int | None, int | None],
):
    launch = detect(environ)
    assert launch.launcher == launcher
    assert (launch.process_index, launch.process_count) == place
    assert (launch.local_index, launch.local_count) == local
    assert launch.several == ((place[1] or 1) > 1)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param(
            _EXPLICIT | _OPENMPI,
            ["2 of 3 (LERAX_DIST_", "PROCESS_ID=2)", "2 of 4 (OMPI_COMM_WORLD_RANK=2"],
            id="explicit, openmpi",
        ),
        pytest.param(_EXPLICIT | _HYDRA, ["2 of 3 (", "2 of 4 (PMI_RANK=2"], id="explicit, mpich"),
        pytest.param(
            _EXPLICIT | _SRUN, ["2 of 3 (", "3 of 4 (SLURM_PROCID=3"], id="explicit, srun"
        ),
        pytest.param(_EXPLICIT | _GKE, ["2 of 3 (", "1 of 2 (TPU_WORKER_ID=1"], id="explicit, tpu"),
        pytest.param(_OPENMPI | _TORCHRUN, ["2 of 4 (OMPI_", "3 of 4 (RANK=3"], id="openmpi, RANK"),
        pytest.param(
            _SRUN | {"RANK": "0", "WORLD_SIZE": "8"},
            ["3 of 4 (SLURM_", "0 of 8 (RANK=0"],
            id="srun",
        ),
        pytest.param(
            _EXPLICIT | {"JAX_COORDINATOR_ADDRESS": "10.0.0.9:1"},
            ["`JAX_COORDINATOR_ADDRESS`", "'10.0.0.9:1'", "'10.0.0.1:4444'"],
            id="two coordinators",
        ),
    ],
)
def test_sources_that_contradict_each_other_are_both_shown(
    environ: dict[str, str], words: list[str]
):
    with pytest.raises(ValueError) as caught:
        detect(environ)
    for word in words:
        assert word in str(caught.value)


def test_sources_that_agree_are_no_conflict():
    told = _EXPLICIT | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:4444"}
    assert detect(told | {"RANK": "2", "WORLD_SIZE": "3"}).launcher == "explicit"
    assert detect(_OPENMPI | {"JAX_COORDINATOR_ADDRESS": "h0:1"}).launcher == "openmpi"


def test_why_shows_variables_and_values():
    assert detect(_OPENMPI).why == "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4"
    assert detect({}).why == "no variables of a launcher"
    batch = detect(_SLURM_JOB | {"SLURM_PROCID": "0"}).why
    assert batch == "SLURM_JOB_ID=71 SLURM_PROCID=0 SLURM_NTASKS=4, but no step of srun"


def test_long_values_are_cut():
    hosts = ",".join(f"host-{index}" for index in range(100))
    why = detect({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": hosts}).why
    assert why.endswith("...")
    assert len(why) < 140


def test_coordinator_is_known_where_the_environment_names_one():
    assert detect(_EXPLICIT).coordinator == "10.0.0.1:4444"
    assert detect(_OPENMPI).coordinator is None
    torchrun = _TORCHRUN | {"MASTER_ADDR": "h0", "MASTER_PORT": "29500"}
    assert detect(torchrun).coordinator == "h0:29500"
    # torchrun itself listens there.
    assert detect(torchrun | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).coordinator is None


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (_OPENMPI | {"OMPI_COMM_WORLD_RANK": "two"}, ["`OMPI_COMM_WORLD_RANK`", "'two'"]),
        (_OPENMPI | {"OMPI_COMM_WORLD_SIZE": ""}, ["`OMPI_COMM_WORLD_SIZE`", "''"]),
        (_OPENMPI | {"OMPI_COMM_WORLD_RANK": "4"}, ["`OMPI_COMM_WORLD_RANK`", "4 of 4"]),
        (_HYDRA | {"PMI_RANK": "-1"}, ["`PMI_RANK`", "'-1'"]),
        (_HYDRA | {"PMI_SIZE": "0"}, ["`PMI_SIZE`", "2 of 0"]),
        (_SRUN | {"SLURM_PROCID": "3.0"}, ["`SLURM_PROCID`", "'3.0'"]),
        (_GKE | {"TPU_WORKER_ID": "2"}, ["`TPU_WORKER_ID`", "2 of 2"]),
        (_TORCHRUN | {"WORLD_SIZE": "four"}, ["`WORLD_SIZE`", "'four'"]),
        (_TORCHRUN | {"MASTER_ADDR": "h0"}, ["MASTER_ADDR:MASTER_PORT", "'h0:None'"]),
        (
            {"LERAX_DIST_COORDINATOR_ADDRESS": "h0:1"},
            ["`LERAX_DIST_NUM_PROCESSES`, `LERAX_DIST_PROCESS_ID`", "ADDRESS=h0:1"],
        ),
        (
            _EXPLICIT | {"LERAX_DIST_COORDINATOR_ADDRESS": "h0"},
            ["`LERAX_DIST_COORDINATOR_ADDRESS`", "'h0'", "host:port"],
        ),
        (_EXPLICIT | {"LERAX_DIST_COORDINATOR_ADDRESS": "h0:99999"}, ["'h0:99999'"]),
        (_EXPLICIT | {"LERAX_DIST_PROCESS_ID": "3"}, ["`LERAX_DIST_PROCESS_ID`", "3 of 3"]),
    ],
)
def test_malformed_values_are_named(environ: dict[str, str], words: list[str]):
    with pytest.raises(ValueError) as caught:
        detect(environ)
    for word in words:
        assert word in str(caught.value)


def test_values_that_are_only_nice_to_know_end_nothing():
    assert detect(_OPENMPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "?"}).local_index is None


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
    ("local_count", "environ", "devices"),
    [
        pytest.param(
            1, {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2"}, None, id="alone"
        ),
        pytest.param(
            2, {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "2"}, [1], id="shared"
        ),
        pytest.param(
            2, {"CUDA_VISIBLE_DEVICES": "1", "SLURM_GPUS_ON_NODE": "2"}, None, id="own one"
        ),
        pytest.param(
            2, {"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_GPUS_ON_NODE": "4"}, None, id="own two"
        ),
        pytest.param(2, {}, [1], id="nothing said"),
    ],
)
def test_devices_of_a_process_under_slurm(
    local_count: int, environ: dict[str, str], devices: list[int] | None
):
    launch = Launch("slurm", 1, 4, 1, local_count, None, "")
    assert choose_local_devices(launch, environ) == devices


def test_a_place_on_the_host_that_nobody_said_is_found_by_the_hosts():
    hosts = ["a", "b", "a", "b", "b"]
    launch = Launch("mpich", 3, 5, None, None, None, "")
    found = with_local_place(launch, hosts)
    assert (found.local_index, found.local_count) == (1, 3)
    # Open MPI 5 numbers the processes of a host as it likes.
    told = Launch("openmpi", 3, 5, 0, 3, None, "")
    assert with_local_place(told, hosts) == told
