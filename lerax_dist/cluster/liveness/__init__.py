"""Which processes of the run are alive, and how they leave it in good order."""

from lerax_dist.cluster.liveness._shutdown import start_liveness as start_liveness
