"""Processes started by hand, or by a launcher that is not in the table."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    AbstractLauncher,
    Launch,
    check_address,
    read_index,
    show_variables,
)

_ADDRESS = "LERAX_DIST_COORDINATOR_ADDRESS"
_COUNT = "LERAX_DIST_NUM_PROCESSES"
_INDEX = "LERAX_DIST_PROCESS_ID"


@final
class Explicit(AbstractLauncher):
    """The three variables `LERAX_DIST_*`. They take precedence over every launcher."""

    name = "explicit"

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        names = (_ADDRESS, _COUNT, _INDEX)
        missing = [name for name in names if not environ.get(name)]
        if len(missing) == len(names):
            return None
        seen = show_variables(environ, *names)
        if missing:
            raise ValueError(
                f"`{'`, `'.join(missing)}` must be set too, got {seen} only. "
                f"Set all of {', '.join(names)}, or none."
            )
        index, count = read_index(environ, _INDEX, _COUNT)
        address = check_address(_ADDRESS, environ[_ADDRESS])
        return Launch(self.name, index, count, None, None, address, seen)
