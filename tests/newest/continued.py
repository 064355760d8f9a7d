"""lerax's PPO, restarted from its own checkpoint: the policy, and the run's state beside it.

Arguments: log_dir, checkpoint, steps. lerax counts from 0 in each `learn`. Reports a
digest of the policy as it was restored, and as it was saved.
"""

import hashlib
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from lerax.algorithm import PPO
from lerax.env.classic_control import CartPole
from lerax.policy import MLPActorCriticPolicy

import lerax_dist as ld
from tests.multiprocess.launch import report


def digest_of(policy: MLPActorCriticPolicy) -> str:
    leaves = jax.tree.leaves(eqx.filter(policy, eqx.is_array))
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def main() -> None:
    log_dir, checkpoint, total_steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    env = CartPole()
    policy, run = MLPActorCriticPolicy(env=env, key=jax.random.key(0)), ld.RunState.empty()
    if checkpoint.exists():
        policy, run = eqx.tree_deserialise_leaves(checkpoint, like=(policy, run))
    restored = digest_of(policy)
    algorithm = PPO(num_envs=2, num_steps=16, num_batches=2, num_epochs=1)
    key = jax.random.key(run.last_step or 0)
    backend = ld.TensorBoardBackend(log_dir)
    with ld.LoggingCallback(
        backend, env=env, policy=policy, state=run, step_offset=run.last_step
    ) as logger:
        policy = algorithm.learn(env, policy, total_steps, key=key, callback=[logger])
        eqx.tree_serialise_leaves(checkpoint, (policy, logger.state()))
    failures = [str(failure) for failure in logger.failures]
    digests = {"restored": restored, "saved": digest_of(policy)}
    report({"process": 0, "failures": failures, **digests})


if __name__ == "__main__":
    main()
