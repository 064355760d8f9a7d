"""Which processes of the run are alive, and how they exit in order."""

from lerax_dist.cluster.liveness._shutdown import start_liveness as start_liveness
