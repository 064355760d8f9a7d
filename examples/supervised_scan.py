"""Classifies handwritten digits in one compiled program: a `lax.scan` that logs from within.

`Logger.emit` sends a row of training each step and a row of evaluation now and then; each has names
and a step of its own. In `shard_map` every device has a part of the batch, and the rows are those
of all of it. scikit-learn brings the images.

    pip install ".[examples]"  # in a checkout

    python examples/supervised_scan.py                   # one process, all of its devices
    mpirun -n 2 python examples/supervised_scan.py       # MPI
    srun --ntasks=8 python examples/supervised_scan.py   # SLURM, in a batch script
"""

import argparse
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jax import numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int, Key
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import lerax_dist as ld

EVAL_EVERY = 50
Params = dict[str, Array]


def init(key: Key[Array, ""]) -> Params:
    hidden, last = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (64, 128)) / 8.0,
        "last": jax.random.normal(last, (128, 10)) / 16.0,
    }


def losses(params: Params, images: Array, labels: Array) -> tuple[Array, Array]:
    """Loss of each image, and whether it is classified correctly."""
    scores = jax.nn.relu(images @ params["hidden"]) @ params["last"]
    loss = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return loss, scores.argmax(axis=1) == labels


def make_train(logger: ld.Logger, optimizer: Any, data: Any, test: Any, batch_size: int) -> Any:
    def train_step(carry: Any, step: Int[Array, ""]) -> tuple[Any, None]:
        params: Any
        params, opt_state, key = carry
        key, now = jax.random.split(key)
        # Every device draws a part of its own.
        chosen = jax.random.randint(
            jax.random.fold_in(now, lax.axis_index("batch")), (batch_size,), 0, len(data[1])
        )
        images, labels = (jnp.asarray(array)[chosen] for array in data)

        def mean_loss(params: Params) -> tuple[Array, tuple[Array, Array]]:
            loss, correct = losses(params, images, labels)
            return lax.pmean(loss.mean(), "batch"), (loss, correct)

        gradient, (loss, correct) = jax.grad(mean_loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        train = {
            "loss": ld.Mean.of(loss),
            "accuracy": ld.Mean.of(correct),
            "loss_worst": ld.Max(loss.max()),
            "gradient_norm": optax.global_norm(gradient),
        }
        logger.emit({"train": train}, step)

        def evaluate() -> None:
            loss, correct = losses(params, *test)
            logger.emit({"test": {"loss": loss.mean(), "accuracy": correct.mean()}}, step)

        lax.cond((step + 1) % EVAL_EVERY == 0, evaluate, lambda: None)
        return (params, opt_state, key), None

    return train_step


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=256, help="images of the whole run")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--log-dir", default="logs")
    args = parser.parse_args()
    group = ld.initialize()
    digits: Any = load_digits()
    images, labels = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, random_state=0)
    optimizer = optax.adam(args.learning_rate)
    mesh = jax.sharding.Mesh(jax.devices(), ("batch",))  # every device of every process
    backends = [ld.TensorBoardBackend(args.log_dir), ld.ConsoleBackend()]
    with ld.Logger(backends, total_steps=args.steps, hparams=vars(args)) as logger:
        step = make_train(
            logger,
            optimizer,
            (train_x, train_y),
            (test_x, test_y),
            args.batch_size // jax.device_count(),
        )

        def train(key: Key[Array, ""]) -> Params:
            params = init(key)
            carry = (params, optimizer.init(params), key)
            (params, *_), _ = lax.scan(step, carry, jnp.arange(args.steps))
            return params

        # The carry is the same on every device, as gradients are those of the mean over all.
        mapped = jax.shard_map(train, mesh=mesh, in_specs=P(), out_specs=P())
        jax.block_until_ready(jax.jit(mapped)(jax.random.key(0)))
    if group.is_writer:
        test = ld.read_run(logger.run_dir)["test/accuracy"]
        print(f"digits: test accuracy {test.values[-1]:.3f}")
        print(f"The logs are in {logger.run_dir}. View them: tensorboard --logdir {args.log_dir}")


if __name__ == "__main__":
    main()
