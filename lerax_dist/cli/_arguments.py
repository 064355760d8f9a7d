"""What the command line's commands share."""

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    brief: str,
    long: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: the command line's commands.
        name: its name.
        brief: its line in `lerax-dist --help`.
        long: its own help, printed as it is.
        run: runs it and returns the exit status. Imports what is costly inside.
    """
    parser = commands.add_parser(
        name,
        help=brief,
        description=long,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def seconds(text: str) -> float:
    """An argument that is a duration above 0.

    Raises:
        argparse.ArgumentTypeError: if it is 0 or less, or infinite.
    """
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value
