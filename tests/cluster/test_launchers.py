"""Environments as launchers leave them, and what is read from each."""

import importlib
import pkgutil
import sys

import pytest

from lerax_dist.cluster import current_job, detect, hint_of_launch, launchers, list_variables

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
# As flux-environment(7) documents them: Flux sets PMI's for every task.
_FLUX = {
    "FLUX_JOB_ID": "ƒ2Vy",
    "FLUX_JOB_SIZE": "4",
    "FLUX_JOB_NNODES": "2",
    "FLUX_TASK_RANK": "3",
    "FLUX_TASK_LOCAL_ID": "1",
    "FLUX_URI": "local:///run/flux/local",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "PMI_FD": "20",
}
# What `mpiexec` of PALS sets in a PBS job.
_PALS = {
    "PBS_JOBID": "1234.polaris",
    "PALS_RANKID": "3",
    "PALS_LOCAL_RANKID": "1",
    "PALS_LOCAL_SIZE": "2",
    "PALS_NODEID": "1",
    "PMI_RANK": "3",
    "PMI_SIZE": "8",
    "PMI_LOCAL_RANK": "1",
    "PMI_LOCAL_SIZE": "2",
}
_JSM = {"JSM_NAMESPACE_RANK": "5", "JSM_NAMESPACE_SIZE": "6", "LSB_JOBID": "9"}
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
            id="pmi of cray",
        ),
        pytest.param(
            _JSM | {"JSM_NAMESPACE_LOCAL_RANK": "2", "JSM_NAMESPACE_LOCAL_SIZE": "3"},
            *("jsrun", (5, 6), (2, 3)),
            id="jsrun",
        ),
        pytest.param({"LSB_JOBID": "9"}, "solo", (0, 1), (0, 1), id="lsf script"),
        pytest.param(
            {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}
            | {"MV2_COMM_WORLD_LOCAL_RANK": "1", "MV2_COMM_WORLD_LOCAL_SIZE": "2"},
            *("mvapich", (1, 2), (1, 2)),
            id="mvapich",
        ),
        pytest.param(_FLUX, "flux", (3, 4), (1, 2), id="flux"),
        pytest.param(
            {name: value for name, value in _FLUX.items() if not name.startswith("PMI_")},
            *("flux", (3, 4), (1, 2)),
            id="flux without pmi",
        ),
        pytest.param(
            # `flux run` in an instance that srun started: the tasks inherit the variables of the
            # shell that submitted them.
            _FLUX | _SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
            *("flux", (3, 4), (1, 2)),
            id="flux in srun",
        ),
        pytest.param(
            _FLUX | {"FLUX_JOB_SIZE": "5", "PMI_SIZE": "5"}, "flux", (3, 5), (1, None), id="odd"
        ),
        pytest.param(
            _FLUX | {"FLUX_JOB_NNODES": "4", "FLUX_TASK_LOCAL_ID": "0"},
            *("flux", (3, 4), (0, 1)),
            id="flux, a task a node",
        ),
        pytest.param(
            _FLUX | {"FLUX_JOB_SIZE": "1", "FLUX_TASK_RANK": "0"} | _HYDRA,
            *("mpich", (2, 4), (1, 2)),
            id="mpich in flux run",
        ),
        pytest.param(
            _FLUX
            | {"FLUX_JOB_SIZE": "1", "FLUX_TASK_RANK": "0", "PMI_SIZE": "1", "PMI_RANK": "0"}
            | _OPENMPI,
            *("openmpi", (2, 4), (1, 2)),
            id="openmpi in flux run",
        ),
        pytest.param(
            {"FLUX_URI": "local:///run/flux/local"}, "solo", (0, 1), (0, 1), id="flux batch"
        ),
        pytest.param(_PALS, "pals", (3, 8), (1, 2), id="pals"),
        pytest.param(
            {name: value for name, value in _PALS.items() if name != "PALS_LOCAL_SIZE"},
            *("pals", (3, 8), (1, 2)),
            id="pals, local size by pmi",
        ),
        pytest.param(
            # `mpiexec --pmi=pmix`: only MPI says how many there are.
            {name: value for name, value in _PALS.items() if not name.startswith("PMI_")},
            *("pals", (3, None), (1, 2)),
            id="pals without pmi",
        ),
        pytest.param(
            _PALS | {"PALS_RANKID": "0"} | _HYDRA, "mpich", (2, 4), (1, 2), id="mpich in pals"
        ),
        pytest.param(_PALS | _OPENMPI, "openmpi", (2, 4), (1, 2), id="openmpi in pals"),
        pytest.param({"PBS_JOBID": "1234.polaris"}, "solo", (0, 1), (0, 1), id="pbs script"),
        pytest.param(
            {"PBS_JOBID": "1234.polaris"} | _HYDRA, "mpich", (2, 4), (1, 2), id="mpich in pbs"
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
            _TORCHRUN | {"JAX_COORDINATOR_ADDRESS": "h0:1"},
            *("torchrun", (3, 4), (1, 2)),
            id="torchrun and an address",
        ),
        pytest.param(
            _GKE | {"RANK": "0", "WORLD_SIZE": "1"}, "tpu", (1, 2), (0, 1), id="gke and RANK"
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
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}
            | {"JAX_COORDINATOR_ADDRESS": "h0:1"},
            *("kubernetes", (2, None), (None, None)),
            id="kubernetes and an address",
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
    assert launch.several == ((place[1] or local[1] or 1) > 1)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param(
            _EXPLICIT | _OPENMPI,
            [
                "2 of 3 (explicit: LERAX_",
                "PROCESS_ID=2)",
                "2 of 4 (openmpi: OMPI_COMM_WORLD_RANK=2",
            ],
            id="explicit, openmpi",
        ),
        pytest.param(
            _EXPLICIT | _HYDRA, ["2 of 3 (", "2 of 4 (mpich: PMI_RANK=2"], id="explicit, mpich"
        ),
        pytest.param(
            _EXPLICIT | _FLUX, ["2 of 3 (", "3 of 4 (flux: FLUX_TASK_RANK=3"], id="explicit, flux"
        ),
        pytest.param(
            _EXPLICIT | _PALS, ["2 of 3 (", "3 of 8 (pals: PALS_RANKID=3"], id="explicit, pals"
        ),
        pytest.param(
            # The number of processes is not known, but the index differs.
            _EXPLICIT | {"PALS_RANKID": "1", "PALS_LOCAL_SIZE": "2"},
            ["2 of 3 (", "1 of an unknown number (pals: PALS_RANKID=1)"],
            id="explicit, pals without pmi",
        ),
        pytest.param(
            _EXPLICIT | _SRUN, ["2 of 3 (", "3 of 4 (slurm: SLURM_PROCID=3"], id="explicit, srun"
        ),
        pytest.param(
            _EXPLICIT | _GKE, ["2 of 3 (", "1 of 2 (tpu: TPU_WORKER_ID=1"], id="explicit, tpu"
        ),
        pytest.param(
            _OPENMPI | _TORCHRUN,
            ["2 of 4 (openmpi: OMPI_", "3 of 4 (torchrun: RANK=3"],
            id="openmpi, RANK",
        ),
        pytest.param(
            _SRUN | {"RANK": "0", "WORLD_SIZE": "8"},
            ["3 of 4 (slurm: SLURM_", "0 of 8 (torchrun: RANK=0"],
            id="srun",
        ),
        pytest.param(
            _FLUX | {"RANK": "0", "WORLD_SIZE": "8"},
            ["3 of 4 (flux: FLUX_", "0 of 8 (torchrun: RANK=0"],
            id="flux, RANK",
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
    same = _EXPLICIT | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:4444"}
    assert detect(same | {"RANK": "2", "WORLD_SIZE": "3"}).launcher == "explicit"
    assert detect(_OPENMPI | {"JAX_COORDINATOR_ADDRESS": "h0:1"}).launcher == "openmpi"
    assert detect(_PALS | {"RANK": "3", "WORLD_SIZE": "8"}).launcher == "pals"
    unknown = {"PALS_RANKID": "2", "PALS_LOCAL_SIZE": "2"}
    assert detect(_EXPLICIT | unknown).launcher == "explicit"


def test_a_launcher_around_the_launcher_is_no_conflict():
    """Only the innermost launcher numbers the same processes as the variables set by hand."""
    ours = _EXPLICIT | {"LERAX_DIST_NUM_PROCESSES": "4", "LERAX_DIST_PROCESS_ID": "3"}
    around = _SRUN | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    assert detect(ours | _FLUX | around).launcher == "explicit"
    mpirun = _OPENMPI | {"OMPI_COMM_WORLD_RANK": "3"}
    assert detect(ours | mpirun | around).launcher == "explicit"


def test_evidence_shows_variables_and_values():
    assert detect(_OPENMPI).evidence == "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4"
    assert detect(_FLUX).evidence == "FLUX_TASK_RANK=3 FLUX_JOB_SIZE=4"
    assert detect(_PALS).evidence == "PALS_RANKID=3 PMI_SIZE=8"
    assert detect({}).evidence == "no variables of a launcher"
    assert str(detect(_HYDRA)) == "process 2 of 4 (mpich: PMI_RANK=2 PMI_SIZE=4)"


@pytest.mark.parametrize(
    ("environ", "evidence", "command"),
    [
        (
            _SLURM_JOB | {"SLURM_PROCID": "0"},
            "SLURM_JOB_ID=71 SLURM_PROCID=0 SLURM_NTASKS=4, but not started by srun",
            "srun",
        ),
        (
            {"FLUX_URI": "local:///f"},
            "FLUX_URI=local:///f, but not started by flux run",
            "flux run",
        ),
        ({"PBS_JOBID": "7.pbs"}, "PBS_JOBID=7.pbs, but not started by mpiexec", "mpiexec"),
        ({}, "no variables of a launcher", ""),
        (_SRUN, "SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4", ""),
    ],
)
def test_a_job_whose_command_was_not_used_is_named(
    environ: dict[str, str], evidence: str, command: str
):
    launch = detect(environ)
    assert (launch.evidence, launch.start_with) == (evidence, command)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (_OPENMPI, None),
        (_SRUN, ("slurm", "71", 0)),
        (_SRUN | {"SLURM_RESTART_COUNT": "2"}, ("slurm", "71", 2)),
        (_SRUN | {"SLURM_RESTART_COUNT": ""}, ("slurm", "71", 0)),
        # Not only what the batch system itself launched is in a job of it.
        (_SLURM_JOB, ("slurm", "71", 0)),
        (_OPENMPI | _MPIRUN_DAEMON, ("slurm", "71", 0)),
        ({"PBS_JOBID": "7.pbs"} | _HYDRA, ("pbs", "7.pbs", 0)),
        (_PALS, ("pbs", "1234.polaris", 0)),
        # A character for folder names, and the job that was submitted last.
        (_FLUX | _SLURM_JOB, ("flux", "f2Vy", 0)),
    ],
)
def test_the_job_around_a_process(environ: dict[str, str], expected: tuple[str, str, int] | None):
    job = current_job(environ)
    assert (job and (job.scheduler, job.id, job.restart_count)) == expected


def test_flux_and_pals_use_mpi_only_where_mpi4py_is_installed(monkeypatch: pytest.MonkeyPatch):
    assert detect(_FLUX).uses_mpi and detect(_PALS).uses_mpi
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert not detect(_FLUX).uses_mpi
    assert detect(_OPENMPI).uses_mpi
    assert not detect(_SRUN).uses_mpi


def test_every_launcher_is_in_the_table():
    for module in pkgutil.iter_modules(launchers.__path__, f"{launchers.__name__}."):
        importlib.import_module(module.name)
    assert {type(one) for one in launchers.LAUNCHERS} == set(
        launchers.AbstractLauncher.__subclasses__()
    )


def test_long_values_are_cut():
    hosts = ",".join(f"host-{index}" for index in range(100))
    evidence = detect({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": hosts}).evidence
    assert evidence.endswith("...")
    assert len(evidence) < 140


def test_coordinator_is_known_where_the_environment_names_one():
    assert detect(_EXPLICIT).coordinator == "10.0.0.1:4444"
    assert detect(_OPENMPI).coordinator is None
    torchrun = _TORCHRUN | {"MASTER_ADDR": "h0", "MASTER_PORT": "29500"}
    assert detect(torchrun).coordinator == "h0:29500"
    # torchrun itself listens there.
    assert detect(torchrun | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).coordinator is None
    for environ in (_FLUX, _PALS):
        assert detect(environ).coordinator is None
        assert detect(environ | {"JAX_COORDINATOR_ADDRESS": "h0:1"}).coordinator == "h0:1"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (_OPENMPI | {"OMPI_COMM_WORLD_RANK": "two"}, ["`OMPI_COMM_WORLD_RANK`", "'two'"]),
        (_OPENMPI | {"OMPI_COMM_WORLD_SIZE": ""}, ["`OMPI_COMM_WORLD_SIZE`", "''"]),
        (_OPENMPI | {"OMPI_COMM_WORLD_RANK": "4"}, ["`OMPI_COMM_WORLD_RANK`", "4 of 4"]),
        (_HYDRA | {"PMI_RANK": "-1"}, ["`PMI_RANK`", "'-1'"]),
        (_HYDRA | {"PMI_SIZE": "0"}, ["`PMI_SIZE`", "2 of 0"]),
        (_FLUX | {"FLUX_TASK_RANK": "4", "PMI_RANK": "4"}, ["`FLUX_TASK_RANK`", "4 of 4"]),
        (_PALS | {"PALS_RANKID": "x", "PMI_RANK": "x"}, ["`PALS_RANKID`", "'x'"]),
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
    ("environ", "identity"),
    [
        ({}, ""),
        (_EXPLICIT, ""),
        (_EXPLICIT | {"LERAX_DIST_LAUNCH_ID": "a"}, "LERAX_DIST_LAUNCH_ID=a"),
        (_SRUN, "SLURM_JOB_ID=71 SLURM_STEP_ID=0"),
        (
            _SRUN | {"SLURM_RESTART_COUNT": "2", "LERAX_DIST_LAUNCH_ID": "a"},
            "SLURM_JOB_ID=71 SLURM_STEP_ID=0 SLURM_RESTART_COUNT=2 LERAX_DIST_LAUNCH_ID=a",
        ),
        (_TORCHRUN | {"TORCHELASTIC_RUN_ID": "7"}, "TORCHELASTIC_RUN_ID=7"),
        (_FLUX, "FLUX_JOB_ID=ƒ2Vy"),
        (_PALS, "PBS_JOBID=1234.polaris"),
    ],
)
def test_a_launch_is_told_from_others_by(environ: dict[str, str], identity: str):
    assert detect(environ).identity == identity


def test_steps_of_a_slurm_job_have_ports_of_their_own():
    ports = {detect(_SRUN | {"SLURM_STEP_ID": str(step)}).coordinator for step in range(64)}
    assert len(ports) == 64 and "n1:61511" in ports  # the first is that of JAX


@pytest.mark.parametrize(
    ("environ", "hint"),
    [
        ({"NODE_RANK": "1", "NNODES": "4"}, "NNODES=4 NODE_RANK=1"),
        ({"NODE_RANK": "0", "NNODES": "1"}, ""),
        ({"ALPS_APP_PE": "3"}, "ALPS_APP_PE=3"),
        ({"PBS_TASKNUM": "1", "PBS_NODENUM": "0"}, ""),
        ({"PBS_TASKNUM": "2"}, "PBS_TASKNUM=2"),
        ({"WORLD_SIZE": "8"}, "WORLD_SIZE=8"),
        (_SLURM_JOB | {"SLURM_PROCID": "0"}, ""),
        ({"NNODES": "1:4"}, ""),
    ],
)
def test_variables_that_only_hint_at_several_processes(environ: dict[str, str], hint: str):
    assert detect(environ).launcher == "solo"
    assert hint_of_launch(environ) == hint


def test_every_variable_that_looks_like_a_launchers_is_listed():
    environ = {"NODE_RANK": "1", "MY_NUM_NODES": "2", "HOME": "/root", "XCURSOR_SIZE": "24"}
    assert list_variables(environ | _JSM) == (
        "JSM_NAMESPACE_RANK=5 JSM_NAMESPACE_SIZE=6 MY_NUM_NODES=2 NODE_RANK=1"
    )
