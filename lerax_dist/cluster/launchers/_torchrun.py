"""torchrun, and what sets the same variables: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, ..."""

import dataclasses
from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    AbstractLauncher,
    Launch,
    check_address,
    show_variables,
)


@final
class Torchrun(AbstractLauncher):
    """`RANK` and `WORLD_SIZE`, set by torchrun, by another program or by a script."""

    name = "torchrun"
    names = ("RANK", "WORLD_SIZE")
    local_names = ("LOCAL_RANK", "LOCAL_WORLD_SIZE")

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        launch = self.read(environ)
        if launch is None:
            return None
        return dataclasses.replace(
            launch,
            coordinator=launch.coordinator or _coordinator(environ),
            evidence=show_variables(environ, *self.names, "MASTER_ADDR", "MASTER_PORT"),
        )


@final
class TorchrunAgent(AbstractLauncher):
    """torchrun itself. A launcher starts one agent a node, so its variables are the agent's."""

    name = Torchrun.name
    # Not the count of restarts, which an agent that was not at fault does not raise.
    launch_variables = ("TORCHELASTIC_RUN_ID",)

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        return Torchrun().detect(environ) if environ.get("TORCHELASTIC_RUN_ID") else None


def _coordinator(environ: Mapping[str, str]) -> str | None:
    # With that setting torchrun's store listens at MASTER_PORT.
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" or not environ.get("MASTER_ADDR"):
        return None
    address = f"{environ['MASTER_ADDR']}:{environ.get('MASTER_PORT')}"
    return check_address("MASTER_ADDR:MASTER_PORT", address)
