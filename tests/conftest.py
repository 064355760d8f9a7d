"""Settings that must stand before jax is imported by anything. No import of the package here."""

import os
import resource
from pathlib import Path

import pytest
from hypothesis import settings

# Eight devices in one process; a deadlock of theirs fails in a minute instead of for ever.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=60 "
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=30"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# A launcher that the tests themselves run under is not what they test.
_LAUNCHERS = (
    *(
        "SLURM_",
        "OMPI_",
        "PMI",
        "PMIX_",
        "PRTE_",
        "TPU_",
        "MEGASCALE_",
        "LERAX_DIST_COORD",
        "LERAX_DIST_J",
    ),
    *("FLUX_", "PALS_", "PBS_", "JSM_", "LSB_", "MV2_", "ALPS_", "NNODES", "NODE_RANK"),
)
for _name in list(os.environ):
    if _name.startswith(_LAUNCHERS) or _name in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}:
        del os.environ[_name]
# JAX processes that are ended by a signal would each leave a core of some 200 MB.
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

# Folders whose tests all start other processes, as do the tests of any file that uses `launch`.
_LAUNCHING = {
    "accelerators",
    "benchmarks",
    "docs",
    "examples",
    "multiprocess",
    "newest",
    "reliability",
    "slurm",
}
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` leaves to `make test`; a single test carries the mark itself."""
    for item in items:
        folder = item.path.relative_to(_HERE).parts[0]
        if folder in _LAUNCHING or hasattr(getattr(item, "module", None), "launch"):
            item.add_marker(pytest.mark.launch)


# Compiling takes longer than any deadline for an example, and a failure should be reproducible.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")
