"""Classifies handwritten digits in an ordinary Python loop, data-parallel over all devices.

A batch is one global array, sharded over the devices of every process. Compiled code computes on
the whole array, so a mean in the step is the mean over the whole run. `Logger` writes it on process
0, and returns at once. scikit-learn brings the images.

    pip install ".[examples]"  # in a checkout

    python examples/plain_loop.py                   # one process, all of its devices
    mpirun -n 2 python examples/plain_loop.py       # MPI
    srun --ntasks=8 python examples/plain_loop.py   # SLURM, in a batch script

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python examples/plain_loop.py  # simulated
"""

import argparse
import functools as ft
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lerax_dist as ld

EVAL_EVERY = 5
Params = dict[str, Array]


def init(key: Key[Array, ""]) -> Params:
    hidden, last = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (64, 128)) / 8.0,
        "hidden_bias": jnp.zeros(128),
        "last": jax.random.normal(last, (128, 10)) / 16.0,
        "last_bias": jnp.zeros(10),
    }


def logits(params: Params, images: Float[Array, "batch 64"]) -> Float[Array, "batch 10"]:
    hidden = jax.nn.relu(images @ params["hidden"] + params["hidden_bias"])
    return hidden @ params["last"] + params["last_bias"]


@jax.jit
def accuracy(params: Params, images: Array, labels: Int[Array, " batch"]) -> Float[Array, ""]:
    return (logits(params, images).argmax(axis=1) == labels).mean()


def train_step(
    optimizer: optax.GradientTransformation, params: Any, opt_state: Any, images: Any, labels: Any
) -> tuple[Any, Any, dict[str, Float[Array, ""]]]:
    def loss(params: Params) -> Float[Array, ""]:
        scores = logits(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    metrics = {"loss": value, "accuracy": accuracy(params, images, labels)}
    return optax.apply_updates(params, updates), opt_state, metrics


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=256, help="images of the whole run")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="name of the run; by default made from the time")
    parser.add_argument("--log-dir", default="logs")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    group = ld.initialize()
    if args.batch_size % jax.device_count():
        devices = jax.device_count()
        raise SystemExit(f"--batch-size {args.batch_size} must be a multiple of {devices} devices")
    digits: Any = load_digits()
    images, labels = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, random_state=0)
    mesh = jax.sharding.Mesh(jax.devices(), ("batch",))  # every device of every process
    split, whole = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())

    optimizer = optax.adam(args.learning_rate)
    params = jax.jit(init, out_shardings=whole)(jax.random.key(args.seed))
    opt_state = jax.jit(optimizer.init, out_shardings=whole)(params)
    step_fn = jax.jit(ft.partial(train_step, optimizer))
    random = np.random.default_rng((args.seed, group.process_index))
    test_accuracy = 0.0

    backends = [ld.TensorBoardBackend(args.log_dir), ld.ConsoleBackend()]
    with ld.Logger(
        backends, args.name, total_steps=args.steps, hparams=vars(args), log_dir=args.log_dir
    ) as logger:
        for step in range(args.steps):
            # This process's part of the batch; the parts of all processes make up the global array.
            mine = random.choice(len(train_x), args.batch_size // group.process_count)
            images = jax.make_array_from_process_local_data(split, train_x[mine])
            labels = jax.make_array_from_process_local_data(split, train_y[mine])
            params, opt_state, train = step_fn(params, opt_state, images, labels)
            metrics: dict[str, Any] = {"train": train}
            if (step + 1) % EVAL_EVERY == 0 or step + 1 == args.steps:
                # `float` waits for the device, which also bounds the number of steps in flight: on
                # busy CPUs, collectives between processes may hang with some 20 of them.
                test_accuracy = float(accuracy(params, test_x, test_y))
                metrics["test"] = {"accuracy": test_accuracy}
            logger.log(metrics, step=step)

    if group.is_writer:
        print(f"digits: test accuracy {test_accuracy:.3f}")
        print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
