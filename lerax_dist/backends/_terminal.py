"""Whether there is a terminal in which something can be redrawn."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def is_terminal(console: "Console") -> bool:
    """Whether someone sees what is redrawn there."""
    wanted = console.is_terminal and not console.is_dumb_terminal and not console.no_color
    return wanted and console.encoding.startswith("utf") and _has_size(console.file)


def _has_size(file: Any) -> bool:
    # Open MPI gives every rank a pseudo-terminal, also when its own output goes to a file; then
    # it has no columns. `FORCE_COLOR` makes Rich take a pipe for a terminal, which has no size.
    try:
        return os.get_terminal_size(file.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):
        return False
