"""The launchers that start processes: one file each, and a table of the order to try them in.

To add one, write a file with a subclass of `AbstractLauncher`, and put it into `LAUNCHERS`.
"""

import dataclasses
from collections.abc import Mapping

from lerax_dist.cluster.launchers._base import JAX_ADDRESS as _JAX_ADDRESS
from lerax_dist.cluster.launchers._base import LAUNCH_ID as LAUNCH_ID
from lerax_dist.cluster.launchers._base import AbstractLauncher as AbstractLauncher
from lerax_dist.cluster.launchers._base import Job as Job
from lerax_dist.cluster.launchers._base import Launch as Launch
from lerax_dist.cluster.launchers._base import check_address as check_address
from lerax_dist.cluster.launchers._base import check_index as check_index
from lerax_dist.cluster.launchers._base import show_variables as show_variables
from lerax_dist.cluster.launchers._explicit import Explicit
from lerax_dist.cluster.launchers._flux import Flux
from lerax_dist.cluster.launchers._hints import hint_of_launch as hint_of_launch
from lerax_dist.cluster.launchers._hints import list_variables as list_variables
from lerax_dist.cluster.launchers._jax import JaxAddress
from lerax_dist.cluster.launchers._jsrun import Jsrun
from lerax_dist.cluster.launchers._kubernetes import Kubernetes
from lerax_dist.cluster.launchers._mvapich import Mvapich
from lerax_dist.cluster.launchers._openmpi import OpenMPI
from lerax_dist.cluster.launchers._pals import PALS
from lerax_dist.cluster.launchers._pmi import PMI
from lerax_dist.cluster.launchers._slurm import Slurm
from lerax_dist.cluster.launchers._torchrun import Torchrun, TorchrunAgent
from lerax_dist.cluster.launchers._tpu import TPU

# The first that recognizes a process is its launcher. Launchers run inside launchers, and what runs
# inside comes first: `mpirun` in a SLURM allocation gives each rank SLURM_PROCID=0 of the
# daemon, torchrun gives each worker the rank of its agent. Flux and PALS set PMI's variables,
# too, and come before PMI; Flux may run in a SLURM job.
LAUNCHERS: tuple[AbstractLauncher, ...] = (
    Explicit(),
    TorchrunAgent(),
    OpenMPI(),
    Mvapich(),
    Jsrun(),
    Flux(),
    PALS(),
    PMI(),
    Slurm(),
    TPU(),
    Torchrun(),
    Kubernetes(),
    JaxAddress(),
)


def detect(environ: Mapping[str, str]) -> Launch:
    """The launch of this process; process 0 of 1 of "solo" if no launcher started it.

    A ValueError if an index or a count is malformed, or two sources contradict each other.
    """
    for launcher in LAUNCHERS:
        launch = launcher.detect(environ)
        if launch is not None:
            check_sources(launch, environ)
            identity = show_variables(environ, *launcher.launch_variables, LAUNCH_ID)
            return dataclasses.replace(launch, identity=identity)
    for launcher in LAUNCHERS:
        evidence = launcher.why_not_launched(environ)
        if evidence:
            return Launch("solo", 0, 1, 0, 1, None, evidence, start_with=launcher.starter)
    return Launch("solo", 0, 1, 0, 1, None, "no variables of a launcher")


def current_job(environ: Mapping[str, str]) -> Job | None:
    """The batch job that this process runs in, whatever started the process; `None` for none."""
    jobs = (launcher.job(environ) for launcher in LAUNCHERS)
    return next((job for job in jobs if job is not None), None)


def check_sources(launch: Launch, environ: Mapping[str, str]) -> None:
    """Check that no other variables contradict a launch.

    A launcher around the launcher is no contradiction: a SLURM allocation around `mpirun`, any
    launcher around torchrun. The ValueError shows both.
    """
    others: list[Launch | None] = []
    if launch.launcher == Explicit.name:
        # The innermost launcher only: one around it counts other processes, e.g. daemons.
        inner = (launcher.detect(environ) for launcher in LAUNCHERS[1:])
        others.append(next((other for other in inner if other is not None), None))
    if not any(one.ignores_rank for one in LAUNCHERS if one.name == launch.launcher):
        others.append(Torchrun().detect(environ))
    for other in others:
        if other is not None and other.several and _differ(launch, other):
            raise ValueError(
                f"`{launch.launcher}` and `{other.launcher}` must name the same launch, got "
                f"{launch} and {other}. Unset the variables that were inherited from elsewhere."
            )
    given = environ.get(_JAX_ADDRESS)
    if given and launch.coordinator not in (None, given):
        raise ValueError(
            f"`{_JAX_ADDRESS}` and the launch must name the same coordinator, got {given!r} and "
            f"{launch.coordinator!r} ({launch.launcher}: {launch.evidence}). Unset one of them."
        )


def _differ(one: Launch, other: Launch) -> bool:
    """Whether two launches differ in what both of them know."""
    index = (one.process_index, other.process_index)
    count = (one.process_count, other.process_count)
    return any(None not in pair and pair[0] != pair[1] for pair in (index, count))
