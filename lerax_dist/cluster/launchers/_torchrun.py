"""torchrun, and what sets the same variables: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, ..."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    JAX_ADDRESS,
    AbstractLauncher,
    Launch,
    check_address,
    read_index,
    read_optional,
    show_variables,
)


@final
class Torchrun(AbstractLauncher):
    """`RANK` and `WORLD_SIZE`, set by torchrun, by another program or by a script."""

    name = "torchrun"

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        names = ("RANK", "WORLD_SIZE")
        if not all(name in environ for name in names):
            return None
        index, count = read_index(environ, *names)
        return Launch(
            self.name,
            *(index, count),
            local_index=read_optional(environ, "LOCAL_RANK"),
            local_count=read_optional(environ, "LOCAL_WORLD_SIZE"),
            coordinator=_coordinator(environ),
            evidence=show_variables(environ, *names, "MASTER_ADDR", "MASTER_PORT"),
        )


@final
class TorchrunAgent(AbstractLauncher):
    """torchrun itself. A launcher starts one agent a node, so its variables are the agent's."""

    name = Torchrun.name

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        return Torchrun().detect(environ) if environ.get("TORCHELASTIC_RUN_ID") else None


def _coordinator(environ: Mapping[str, str]) -> str | None:
    if environ.get(JAX_ADDRESS):
        return environ[JAX_ADDRESS]
    # torchrun's own store listens at MASTER_PORT then.
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" or not environ.get("MASTER_ADDR"):
        return None
    address = f"{environ['MASTER_ADDR']}:{environ.get('MASTER_PORT')}"
    return check_address("MASTER_ADDR:MASTER_PORT", address)
