"""Whole trainings as users lay them out: their rows are those of what they return, by NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.multiprocess.launch import launch
from tests.readers import event_rows, journal_rows
from tests.transforms.whole import (
    BATCH,
    ENVIRONMENTS,
    ENVS,
    EPOCHS,
    EVALUATED,
    ROLLOUT,
    ROWS,
    SEEDS,
    STEPS,
    UPDATES,
)

RUN = Path(__file__).parent / "whole.py"
DEVICES = 4
Row = tuple[int, dict[str, float]]


def run(folder: Path, devices: int, *names: str) -> Path:
    launch(RUN, str(folder), *names, devices=devices, launcher="solo", timeout=280)
    return folder


@pytest.fixture(scope="module")
def on_four_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    return run(folder, DEVICES, "seeds by jit", "anakin", "anakin, seeds", "scan", "nnx", "equinox")


def read(folder: Path) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows of a program, the same in both of its files, and what it has returned."""
    (run_dir,) = (path for path in folder.iterdir() if path.is_dir())
    rows = [(step, timeless(row)) for step, row in journal_rows(run_dir)]
    events = [(step, timeless(row)) for step, row in event_rows(run_dir)]
    assert [(step, [*row]) for step, row in events] == [(step, [*row]) for step, row in rows]
    for (_, row), (_, event) in zip(rows, events, strict=True):
        check(event, row)
    return rows, dict(np.load(folder / "returned.npz"))


def timeless(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def check(row: dict[str, float], wanted: dict[str, Any], rtol: float = 1e-5) -> None:
    assert sorted(row) == sorted(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(row[name], value, rtol=rtol, atol=1e-5, err_msg=name)


def masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean along the last axis; NaN where the mask has nothing."""
    return np.ma.masked_array(values.astype(np.float64), ~mask).mean(-1).filled(np.nan)


def band(members: dict[str, np.ndarray]) -> dict[str, float]:
    """The row of members, given `(members,)` for each metric; NaN is no value."""
    row = {}
    for name, values in members.items():
        there = values[~np.isnan(values)]
        if there.size:
            row[name], row[f"{name}/member_std"] = there.mean(), there.std()
            row[f"{name}/member_min"], row[f"{name}/member_max"] = there.min(), there.max()
    return row


# --- seeds of examples/purejaxrl_ppo.py


def check_seeds(folder: Path) -> list[Row]:
    """The rows of all seeds, after a check against what the training returns for each."""
    rows, returned = read(folder)
    assert [step for step, _ in rows] == [ENVIRONMENTS * ROLLOUT * (i + 1) for i in range(ROWS)]
    losses = {name: values for name, values in returned.items() if not name.startswith("returned_")}
    assert {values.shape for values in losses.values()} == {(SEEDS, ROWS)}
    ended, returns, lengths = (
        returned[f"returned_episode{name}"].reshape(SEEDS, ROWS, -1)
        for name in ("", "_returns", "_lengths")
    )
    # At first no seed has ended an episode, or only some have.
    assert not ended[:, 0].any(-1).all()
    for i, (_, row) in enumerate(rows):
        members = {f"train/{name}": values[:, i] for name, values in losses.items()}
        members["episode/return"] = masked_mean(returns[:, i], ended[:, i])
        members["episode/length"] = masked_mean(lengths[:, i], ended[:, i])
        members["episode/count"] = ended[:, i].sum(-1).astype(float)
        check(row, band(members))
    return rows


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = run(tmp_path_factory.mktemp("one"), 1, "seeds by jit")
    return check_seeds(folder / "seeds by jit")


def test_the_band_of_seeds_is_the_same_on_four_devices(
    on_one_device: list[Row], on_four_devices: Path
) -> None:
    check_same(check_seeds(on_four_devices / "seeds by jit"), on_one_device)


@pytest.mark.full
@pytest.mark.parametrize("name", ["seeds by pmap", "seeds by shard_map"])
def test_seeds_split_by_hand(on_one_device: list[Row], tmp_path: Path, name: str) -> None:
    check_same(check_seeds(run(tmp_path, DEVICES, name) / name), on_one_device)


def check_same(rows: list[Row], on_one: list[Row]) -> None:
    for (step, row), (same, one) in zip(rows, on_one, strict=True):
        assert step == same
        # The trainings themselves round differently.
        check(row, one, rtol=1e-3)


# --- an Anakin layout


@pytest.mark.parametrize(("name", "seeds"), [("anakin", 1), ("anakin, seeds", 3)])
def test_an_anakin_layout_counts_all_of_each_seed(
    on_four_devices: Path, name: str, seeds: int
) -> None:
    rows, returned = read(on_four_devices / name)
    emitted = [row for row in rows if any(name.startswith("emitted/") for name in row[1])]
    logged = [row for row in rows if row not in emitted]
    count = STEPS * ENVS * BATCH * DEVICES
    assert [step for step, _ in logged] == [count * (i + 1) for i in range(UPDATES)]
    assert [step for step, _ in emitted] == [100 * (i + 1) for i in range(UPDATES)]
    # The parameters are the same wherever gradients are averaged.
    assert returned["table"].shape == (DEVICES, seeds, BATCH, UPDATES)
    assert np.ptp(returned["table"], axis=(0, 2)).max() < 1e-6
    for i in range(UPDATES):
        now = {
            name: np.moveaxis(values[:, :, :, i], 1, 0).reshape(seeds, -1).astype(np.float64)
            for name, values in returned.items()
        }
        done, ended = now["done"] > 0, now["ended"] > 0
        log = {
            "loss": now["loss"].mean(1),
            "reward": now["reward"].mean(1),
            "end": masked_mean(now["reward"], done),
            "ends": done.sum(1).astype(float),
            "best": now["reward"].max(1),
            "table": now["table"].mean(1),
        }
        own = [seed[there] for seed, there in zip(now["average"], ended, strict=True)]
        episode = {
            "return": np.array([x.mean() for x in own]),
            "return_min": np.array([x.min() for x in own]),
            "return_max": np.array([x.max() for x in own]),
            "return_std": np.array([x.std() for x in own]),
            "length": masked_mean(now["ended"], ended),
            "count": ended.sum(1).astype(float),
        }
        wanted = {f"train/{name}": values for name, values in log.items()}
        wanted |= {f"episode/{name}": values for name, values in episode.items()}
        also = {f"emitted/{name}": values for name, values in log.items()}
        for row, members in ((logged[i][1], wanted), (emitted[i][1], also)):
            alone = {name: values[0] for name, values in members.items()}
            check(row, alone if seeds == 1 else band(members))


# --- supervised


@pytest.mark.parametrize("name", ["scan", "nnx", "equinox"])
def test_a_supervised_training_logs_all_examples(on_four_devices: Path, name: str) -> None:
    rows, returned = read(on_four_devices / name)
    losses = {name: np.square(errors.astype(np.float64)) for name, errors in returned.items()}
    wanted = [(i, supervised_row("train", losses["train"][i])) for i in range(EPOCHS)]
    evaluated = [i for i in range(EPOCHS) if i % EVALUATED == EVALUATED - 1]
    tested = [(i, supervised_row("test", losses["test"][i])) for i in evaluated]
    logged = []
    if name == "equinox":
        average = [1.0]
        for i in range(EPOCHS):
            logged.append((i, {"average": average[-1]}))
            average.append(0.5 * (average[-1] + losses["train"][i].mean()))
    for prefix, expected in (("train/", wanted), ("test/", tested), ("average", logged)):
        there = [row for row in rows if any(name.startswith(prefix) for name in row[1])]
        assert [step for step, _ in there] == [step for step, _ in expected]
        for (_, row), (_, each) in zip(there, expected, strict=True):
            check(row, each)
    assert len(rows) == len(wanted) + len(tested) + len(logged)
    assert wanted[-1][1]["train/loss"] < wanted[0][1]["train/loss"]


def supervised_row(name: str, losses: np.ndarray) -> dict[str, float]:
    far = losses > 4.0
    row = {"loss": losses.mean(), "worst": losses.max(), "far": float(far.sum())}
    if far.any():
        row["loss_far"] = losses[far].mean()
    return {f"{name}/{key}": value for key, value in row.items()}
