"""Kubernetes: a job with indexed completion mode."""

from collections.abc import Mapping
from typing import final

from lerax_dist.cluster.launchers._base import (
    AbstractLauncher,
    Launch,
    read_number,
    show_variables,
)


@final
class Kubernetes(AbstractLauncher):
    """An indexed job. Only the cluster's API knows how many pods it has, and JAX asks it."""

    name = "kubernetes"
    join = "jax"
    ignores_rank = True

    def detect(self, environ: Mapping[str, str]) -> Launch | None:
        names = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
        if not all(environ.get(name) for name in names):
            return None
        index = read_number(environ, "JOB_COMPLETION_INDEX")
        evidence = show_variables(environ, *names)
        return Launch(self.name, index, None, None, None, None, evidence, join=self.join)
