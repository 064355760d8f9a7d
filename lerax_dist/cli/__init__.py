"""The command `lerax-dist`: checks launches, and shows what runs have written."""

import argparse
from collections.abc import Sequence
from typing import TypeAlias

from lerax_dist._version import __version__
from lerax_dist.backends import ALL_BACKENDS
from lerax_dist.backends.console._view import HEADLINE

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_DOCTOR = """\
Checks whether a run would log correctly here. Start it as you will start the training: alone, with
`mpirun -n 4 lerax-dist doctor`, with `srun lerax-dist doctor`, or by hand in each process with
LERAX_DIST_COORDINATOR_ADDRESS, LERAX_DIST_NUM_PROCESSES and LERAX_DIST_PROCESS_ID.

All processes join, and process 0 prints one report; the others print nothing unless joining fails.
The exit status is the same on all processes: 0 if a run would log correctly, 1 if not. Warnings and
hints do not change it.

If a process does not arrive, the doctor names it when --timeout expires, and the others exit with
status 1. It knows the missing ones by a rendezvous at the coordinator address (LERAX_DIST_*,
torchrun, SLURM, TPU pods on GKE) or by MPI. It cannot name a process that never starts MPI, nor one
that does not join on TPU VMs of Compute Engine or in Kubernetes: there each process that started
prints a message, and those that print nothing are missing.
"""
_REPLAY = """\
Feeds a backend from the journal of a run, in order: hyperparameters, starts of training, rows and
videos. The run may be finished, killed, or still being written (then up to now). The journal is
only read. Damaged lines are counted and left out, and so are rows that a later incarnation of the
run has logged again and videos whose files are gone.

What the backend does not take is left out and counted; the exit status is 1 then.

If the folder holds output of the same kind (an event file, a metrics.jsonl), nothing is written,
unless --force removes that first, or --from-step completes it: only rows and videos of that step or
later are written, and what is there of them is superseded. W&B gets a new run each time. Values and
steps are those of the journal (TensorBoard keeps float32). TensorBoard's events have the times of
their rows; W&B's have the time of the replay.
"""
_WATCH = """\
Shows runs as they are, by their journals, which are only read and never locked: from any machine
that sees the folder, while the run is running or after it has ended. One run is shown as its own
console would, several side by side. Rows that a later incarnation of the run has logged again are
hidden. It ends when every run has finished or failed, or with Ctrl-C.

In a pipe it prints a line per run every --interval seconds; --once prints one screen and ends.

States: running, finished, failed, preempted (it may be resumed), interrupted (its writer has sent
no heartbeat and no row for a minute), waiting (no journal yet), empty, damaged.

  lerax-dist watch logs/a
  lerax-dist watch logs/a logs/b --chart train/loss
  lerax-dist watch logs/a logs/b --export rows.parquet

--export writes every row: its run, step, time, iteration, and a column for each metric, empty where
the row has none. In Python, `lerax_dist.read_run` gives the same as NumPy arrays.
"""
_LS = """\
Lists the runs in a folder: every folder below it that holds a journal.jsonl. Only the head and the
tail of each journal are read.

States: running, finished, failed, preempted (it may be resumed), interrupted (its writer has sent
no heartbeat and no row for a minute), empty, damaged.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if `None`.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="lerax-dist",
        description="Checks launches of JAX programs, and shows what their runs have logged.",
        epilog="`lerax-dist COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"lerax-dist {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_parser in (_add_doctor, _add_replay, _add_watch, _add_ls):
        add_parser(commands)
    return _run(parser.parse_args(argv))


def _run(options: argparse.Namespace) -> int:
    # Imported here: each command loads only what it needs.
    match options.command:
        case "doctor":
            from lerax_dist.cli.doctor._driver import run_doctor

            return run_doctor(options.log_dir, options.timeout, as_json=options.json)
        case "replay":
            from lerax_dist.cli._replay import replay_command

            return replay_command(
                *(options.run_dir, options.to, options.log_dir, options.name, options.project),
                from_step=options.from_step,
                force=options.force,
            )
        case "watch" if options.export:
            from lerax_dist.cli._export import export

            return export(options.run_dir, options.export)
        case "watch":
            from lerax_dist.cli._watch import watch

            return watch(options.run_dir, options.chart, options.interval, once=options.once)
        case _:
            from lerax_dist.cli._ls import list_runs

            return list_runs(options.log_dir, as_json=options.json)


def _add_command(commands: _Commands, name: str, brief: str, long: str) -> argparse.ArgumentParser:
    """Add a command with its line in `lerax-dist --help` and its own help, printed as it is."""
    form = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(name, help=brief, description=long, formatter_class=form)


def _add_doctor(commands: _Commands) -> None:
    brief = "check whether a run would log correctly here"
    doctor = _add_command(commands, "doctor", brief, _DOCTOR)
    doctor.add_argument(
        "--log-dir", default="logs", metavar="DIR", help="folder of the runs (default: %(default)s)"
    )
    doctor.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="longest wait for the other processes at each stage (default: %(default)g)",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")


def _add_replay(commands: _Commands) -> None:
    replay = _add_command(
        commands, "replay", "rebuild a backend from the journal of a run", _REPLAY
    )
    names = [each.replay_name for each in ALL_BACKENDS if each.replay_name is not None]
    replay.add_argument("run_dir", metavar="RUN_DIR", help="folder that holds the journal.jsonl")
    replay.add_argument("--to", required=True, choices=names, help="backend to feed")
    replay.add_argument(
        "--log-dir",
        metavar="OUT",
        help="folder in which the folder of the run is made; for W&B, the folder of its files "
        "(default: beside the journal; for W&B, the working directory)",
    )
    replay.add_argument(
        "--name", metavar="NAME", help="name to write under (default: the name of the run)"
    )
    replay.add_argument("--project", metavar="PROJECT", help="W&B project (default: W&B's default)")
    replay.add_argument(
        "--from-step", type=int, metavar="STEP", help="write only rows of this step or later"
    )
    replay.add_argument("--force", action="store_true", help="replace the files that are there")


def _add_watch(commands: _Commands) -> None:
    watch = _add_command(commands, "watch", "show runs as they are, or export them", _WATCH)
    watch.add_argument(
        "run_dir", nargs="+", metavar="RUN_DIR", help="folder that holds the journal.jsonl"
    )
    watch.add_argument(
        "--chart",
        default=HEADLINE,
        metavar="METRIC",
        help="metric to draw (default: %(default)s, else the first loss)",
    )
    watch.add_argument("--once", action="store_true", help="print one screen and end")
    watch.add_argument(
        "--interval",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="seconds between lines in a pipe (default: %(default)g)",
    )
    watch.add_argument(
        "--export",
        metavar="OUT",
        help="write all rows into a .csv or .parquet file; the latter needs pyarrow",
    )


def _add_ls(commands: _Commands) -> None:
    ls = _add_command(commands, "ls", "list runs and their states", _LS)
    ls.add_argument(
        "log_dir",
        nargs="?",
        default="logs",
        metavar="LOG_DIR",
        help="folder of the runs (default: %(default)s)",
    )
    ls.add_argument("--json", action="store_true", help="print a JSON array")


def seconds(text: str) -> float:
    """An argument that is a duration above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value
