"""`lerax-dist doctor`: checks whether a run would log correctly. A file for each check."""

import argparse

from lerax_dist.cli._arguments import Commands, add_command, seconds

_HELP = """\
Checks whether a run would log correctly here. Start it as you will start the training: alone, with
`mpirun -n 4 lerax-dist doctor`, with `srun lerax-dist doctor`, or by hand in each process with
LERAX_DIST_COORDINATOR_ADDRESS, LERAX_DIST_NUM_PROCESSES and LERAX_DIST_PROCESS_ID.

All processes join, and process 0 prints one report; the others print nothing unless joining fails.
The exit status is the same on all processes: 0 if a run would log correctly, 1 if not. Warnings and
hints do not change it.

If a process does not arrive, the doctor names it when --timeout expires, and the others exit with
status 1. It knows who is missing by a rendezvous at the coordinator address (LERAX_DIST_*,
torchrun, SLURM, TPU pods on GKE) or by MPI. It cannot name a process that never starts MPI, nor one
that does not join on TPU VMs of Compute Engine or in Kubernetes: there each process that started
prints a message, and those that print nothing are missing.
"""


def add_parser(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "doctor", "check whether a run would log correctly here", _HELP, _run
    )
    parser.add_argument(
        "--log-dir", default="logs", metavar="DIR", help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="longest wait for the other processes at each stage (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _run(options: argparse.Namespace) -> int:
    from lerax_dist.cli.doctor._driver import run_doctor

    return run_doctor(options.log_dir, options.timeout, as_json=options.json)
