"""What users log with in a Python loop: each takes a dict of arrays and a step, as they would."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import lerax_dist as ld

Log = Callable[[Mapping[str, Any], int], object]


@contextmanager
def lerax_dist_logger(folder: Path) -> Iterator[Log]:
    with ld.Logger(ld.TensorBoardBackend(folder), "run") as logger:
        yield logger.log


@contextmanager
def tensorboardx(folder: Path) -> Iterator[Log]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def log(metrics: Mapping[str, Any], step: int) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, float(value), step)

        yield log


@contextmanager
def wandb_offline(folder: Path) -> Iterator[Log]:
    import wandb

    os.environ |= {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}
    run = wandb.init(mode="offline", dir=str(folder), project="benchmark", reinit="create_new")
    yield lambda metrics, step: run.log({n: float(v) for n, v in metrics.items()}, step=step)
    run.finish()


@contextmanager
def json_line(folder: Path) -> Iterator[Log]:
    with (folder / "rows.jsonl").open("w", buffering=1) as file:

        def log(metrics: Mapping[str, Any], step: int) -> None:
            row = {name: float(value) for name, value in metrics.items()}
            file.write(json.dumps({"step": step, **row}) + "\n")

        yield log


@contextmanager
def clu_async(folder: Path) -> Iterator[Log]:
    from clu import metric_writers  # pyright: ignore[reportMissingImports]

    writer = metric_writers.create_default_writer(str(folder), asynchronous=True)
    yield lambda metrics, step: writer.write_scalars(step, dict(metrics))
    writer.close()


LERAX_DIST = "Logger, of `reduce`"
USERS: dict[str, Callable[[Path], AbstractContextManager[Log]]] = {
    LERAX_DIST: lerax_dist_logger,
    "Logger, of 64 arrays": lerax_dist_logger,
    "bare json line": json_line,
    "tensorboardX add_scalar": tensorboardx,
    "wandb.log offline": wandb_offline,
    "CLU asynchronous writer": clu_async,
}


def absent(name: str) -> str | None:
    """Why one cannot run here, if it cannot."""
    if name.startswith("CLU") and importlib.util.find_spec("clu") is None:
        return "not installed (pip install clu tensorflow)"
    return None
