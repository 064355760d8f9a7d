"""JAX's variable for the coordinator, without a launcher."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    JAX_ADDRESS,
    AbstractLauncher,
    Launch,
    check_address,
    show_variables,
)


@final
class JaxAddress(AbstractLauncher):
    """`JAX_COORDINATOR_ADDRESS` alone. The process index must be passed as an argument."""

    name = "jax"
    join = "jax"

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        if not environ.get(JAX_ADDRESS):
            return None
        address = check_address(JAX_ADDRESS, environ[JAX_ADDRESS])
        evidence = show_variables(environ, JAX_ADDRESS)
        return Launch(self.name, None, None, None, None, address, evidence, join=self.join)
