"""The start of a training, told to the host: hyperparameters and how long it will be."""

from typing import Any

import numpy as np
from jax import numpy as jnp

from lerax_dist import _hparams
from lerax_dist._protocol import TrainingContext
from lerax_dist._session import Session
from lerax_dist.device._message import send_start
from lerax_dist.device._transfer import Deliver


def announce(session: Session, ctx: TrainingContext, log_interval: int) -> None:
    """Log the hyperparameters, and tell backends how long the training will be.

    Args:
        session: the run.
        ctx: what the training says about itself, lerax's context or ours.
        log_interval: distance between the iterations that are logged.
    """
    # lerax 0.0.5 has no such field yet.
    algorithm: Any = getattr(ctx, "algorithm", None)
    hparams = _hparams.extract(ctx.policy, "policy")
    hparams |= _hparams.extract(algorithm, "algorithm")
    hparams |= session.hparams
    if hparams == session.hparams:
        # Told when the logger was made.
        hparams = {}
    total = 0 if ctx.total_timesteps is None else ctx.total_timesteps
    known = int(total) if isinstance(total, (int, float, np.number)) else None
    iterations = 0
    if known is not None and callable(getattr(algorithm, "num_iterations", None)):
        iterations = int(algorithm.num_iterations(known))
    # Where each process knows of its own program only the steps of all are summed.
    programs = session.group.process_count if session.scope == "process" else 1
    whole = None if known is None else known * programs
    deliver = _all_programs(
        session.run.sink.start(log_interval, whole, iterations, hparams), programs
    )
    send_start(deliver, jnp.asarray(ctx.iteration_count, jnp.int32), total if known is None else 0)


def _all_programs(deliver: Deliver, programs: int) -> Deliver:
    """Multiplies the total on the host, whose integers do not overflow."""

    def deliver_all(part: int, parts: int, payload: Any) -> None:
        iteration, total = np.asarray(payload).tolist()
        deliver(part, parts, (iteration, total * programs))

    return deliver_all
