"""A training of Brax, logged by its `progress_fn`; reports what that was given.

Arguments: log_dir, and "es" or "ppo".
"""

import importlib
import sys
from typing import Any

import jax
from brax import envs
from jax import numpy as jnp

import lerax_dist as ld
from tests.multiprocess.launch import report

PPO = {"num_envs": 8, "unroll_length": 4, "batch_size": 8, "num_minibatches": 2}
PPO |= {"num_updates_per_batch": 1, "log_training_metrics": True, "training_metrics_steps": 128}
OPTIONS: dict[str, dict[str, Any]] = {"es": {"population_size": 8}, "ppo": PPO}


def put_replicated(values: Any, devices: Any) -> Any:
    return jax.tree.map(lambda x: jnp.stack([x] * len(devices)), values)


def main() -> None:
    log_dir, agent = sys.argv[1:]
    if agent == "ppo":
        # That of Brax 0.14.2 calls it; JAX 0.10 has it no more.
        jax.device_put_replicated = put_replicated
    train = importlib.import_module(f"brax.training.agents.{agent}.train").train
    given = []
    with ld.Logger(ld.TensorBoardBackend(log_dir), agent) as logger:

        def progress(num_steps: int, metrics: dict[str, Any]) -> None:
            logger.log(metrics, num_steps)
            given.append((num_steps, {name: float(value) for name, value in metrics.items()}))

        evaluation = {"episode_length": 20, "num_evals": 3, "num_eval_envs": 8}
        environment = envs.get_environment("fast")
        options = evaluation | OPTIONS[agent]
        train(environment, num_timesteps=1024, progress_fn=progress, **options)
    report({"process": 0, "given": given, "failures": [str(f) for f in logger.failures]})


if __name__ == "__main__":
    main()
