"""A logging backend of your own: rows in a SQLite database, for SQL and any tool that reads it.

A backend is five methods. It is opened in process 0 only, and all calls come from one thread. It
may be slow, or fail: the training does not wait for it, and every row is in the journal.

    python examples/custom_backend.py
    mpirun -n 2 python examples/custom_backend.py    # one database, written by process 0
"""

import sqlite3
from pathlib import Path
from typing import Any, final

import jax
import numpy as np

import lerax_dist as ld


@final
class SQLiteBackend(ld.AbstractLoggingBackend):
    """Appends every value to the table `metrics` of a database that many runs may share."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def open(self, name: str) -> None:
        self._name = name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self._path)
        self._db.execute("CREATE TABLE IF NOT EXISTS metrics (run, step, name, value)")

    def log_hparams(self, hparams: dict[str, Any]) -> None:
        self._insert([(self._name, None, name, value) for name, value in hparams.items()])

    def log_scalars(self, scalars: dict[str, np.ndarray], step: int) -> None:
        self._insert([(self._name, step, name, float(x)) for name, x in scalars.items()])

    def log_video(self, tag: str, frames: np.ndarray, step: int, fps: float) -> None:
        self._insert([(self._name, step, tag, frames.tobytes())])

    def close(self) -> None:
        self._db.close()

    def _insert(self, rows: list[tuple[str, int | None, str, Any]]) -> None:
        with self._db:  # a transaction: a row is there as a whole or not at all
            self._db.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", rows)


@jax.jit
def train_step(weight: Any) -> tuple[Any, Any]:
    loss, gradient = jax.value_and_grad(lambda w: (w - 3.0) ** 2)(weight)
    return weight - 0.05 * gradient, loss


def main() -> None:
    group = ld.initialize()
    path = Path("logs", "runs.sqlite")
    weight = jax.numpy.zeros(())
    with ld.Logger(SQLiteBackend(path), log_dir="logs", hparams={"learning_rate": 0.05}) as logger:
        for step in range(100):
            weight, loss = train_step(weight)
            logger.log({"train": {"loss": loss}}, step)
    if group.is_writer:
        best = "SELECT step, min(value) FROM metrics WHERE run = ? AND name = 'train/loss'"
        (found,) = sqlite3.connect(path).execute(best, (logger.name,))
        print(f"{path}: the lowest loss of {logger.name} is {found[1]:.2g}, at step {found[0]}")


if __name__ == "__main__":
    main()
