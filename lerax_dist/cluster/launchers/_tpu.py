"""TPU pods: of Google Kubernetes Engine, where variables name the hosts, and of Compute Engine."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    JAX_ADDRESS,
    AbstractLauncher,
    Launch,
    check_index,
    read_index,
    read_number,
    show_variables,
)

# JAX's coordination service listens there, see `jax/_src/clusters/cloud_tpu_cluster.py`.
_PORT = "8482"


@final
class TPU(AbstractLauncher):
    """A TPU pod: one process a host."""

    name = "tpu"
    join = "jax"
    ignores_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        has_addresses = bool(environ.get("TPU_PROCESS_ADDRESSES"))
        hosts_name = "TPU_PROCESS_ADDRESSES" if has_addresses else "TPU_WORKER_HOSTNAMES"
        if environ.get(hosts_name) and environ.get("TPU_WORKER_ID"):
            return self._named_by(hosts_name, environ)
        # On a TPU VM of Compute Engine only the metadata server knows the pod, and JAX asks it.
        # JAX sets the first of these when it finds TPU chips, the second when it finds none.
        if environ.get("TPU_ML_PLATFORM") == "JAX" and not environ.get("TPU_SKIP_MDS_QUERY"):
            evidence = show_variables(environ, "TPU_ML_PLATFORM")
            return Launch(self.name, None, None, 0, 1, None, evidence, join=self.join)
        return None

    def _named_by(self, hosts_name: str, environ: Mapping[str, str]) -> Launch:
        """The launch by Kubernetes' variables: process = worker + slice * (workers a slice)."""
        workers = len(environ[hosts_name].split(","))
        worker = read_number(environ, "TPU_WORKER_ID")
        check_index("TPU_WORKER_ID", worker, f"hosts in {hosts_name}", workers)
        slice_names = ("MEGASCALE_SLICE_ID", "MEGASCALE_NUM_SLICES")
        slice_index, slices = 0, 1
        if all(environ.get(name) for name in slice_names):
            slice_index, slices = read_index(environ, *slice_names)
        return Launch(
            self.name,
            process_index=worker + slice_index * workers,
            process_count=workers * slices,
            local_index=0,
            local_count=1,
            coordinator=environ.get(JAX_ADDRESS) or _coordinator(hosts_name, environ),
            evidence=show_variables(environ, "TPU_WORKER_ID", hosts_name, *slice_names),
            join=self.join,
        )


def _coordinator(hosts_name: str, environ: Mapping[str, str]) -> str:
    """The address that JAX chooses: the first host of the first slice, and a fixed port."""
    hosts = environ.get("MEGASCALE_COORDINATOR_ADDRESS") or environ[hosts_name]
    host = hosts.split(",")[0].split(":")[0]
    return f"{host}:{environ.get('JAX_COORDINATOR_PORT') or _PORT}"
