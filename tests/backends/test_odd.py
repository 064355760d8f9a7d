"""Names and values that mean something to a backend's format: none costs its row or another."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.backends._wandb import nested
from tests.backends.read_wandb import read_wandb
from tests.backends.test_wandb import files_of_runs, isolated, run
from tests.readers import event_rows

NAMES = [
    *(
        "c.d_loss",
        "c\\d_loss",
        "c*_loss",
        "loss*",
        "*",
        "**/loss",
        "a[b]_loss",
        "{a}",
        "?",
        "%s",
        "$x",
    ),
    *(
        "_step",
        "_timestamp",
        "_runtime",
        "_wandb",
        "_x",
        "global_step",
        "step",
        "time",
        "n",
        "null",
    ),
    *("/loss", "loss/", "a//loss", "../loss", ".loss", "loss.", "..", " loss ", "a b", "-loss"),
    *("\ud800_loss", "a\udcff", "\0", "\x1b[31m", "\n", "\r\n", "\u202e", "\u2028", "ü_loss", "💥"),
    *("x" * 10_000, '"', "'", "<b>", "|", "=", "a,b", "NaN", "[/]", "[red]", "__class__"),
]
VALUES = [1e300, -1e-320, math.nan, math.inf, -math.inf, 2.0**60, 0.1]
HPARAMS: dict[str, Any] = {
    **{name: 1 for name in NAMES},
    **{f"value {i}": value for i, value in enumerate(VALUES)},
    **{
        "big": 10**400,
        "bigger": 10**5000,
        "half": "\ud800",
        "nothing": None,
        "list": [1, "\udcff"],
    },
    "nest": {"": {"": 1}, "*": {".": 2}},
}
STEPS = [0, 7, 2**53 + 1, 2**62]


def log_odd(backends: list[ld.AbstractLoggingBackend]) -> ld.Logger:
    """A run with each name alone and all together, beside a metric that must not suffer."""
    with ld.Logger(backends, "r", hparams=HPARAMS) as logger:
        for i, name in enumerate(NAMES):
            logger.log({name: VALUES[i % len(VALUES)], "neighbor": i}, i)
        for step in STEPS:
            logger.log(dict.fromkeys(NAMES, 0.5) | {"neighbor": 1.0}, step)
            logger.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), step)
    # A warning is an error in these tests; so are failures.
    assert {failure.where for failure in logger.failures} <= {"metrics"}
    return logger


@pytest.mark.filterwarnings("ignore:metrics")
def test_no_name_or_value_costs_a_row_in_files_and_lines(tmp_path, capsys):
    console = ld.ConsoleBackend(interval=0.0, metrics=["*"])
    memory = ld.MemoryBackend()
    backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path), console, memory]
    logger = log_odd(backends)
    count = len(NAMES) + len(STEPS)
    run = ld.read_run(logger.run_dir)
    assert len(run) == len(memory.rows) == count
    assert set(NAMES) <= set(run.columns) and set(NAMES) <= set(memory.rows[-1][1])
    names = dict.fromkeys(name.encode("utf-8", "backslashreplace").decode() for name in NAMES)
    rows = event_rows(logger.run_dir)
    assert len(rows) == count and set(names) <= set(rows[-1][1])
    lines = (logger.run_dir / "metrics.jsonl").read_text().splitlines()
    parsed = [json.loads(line) for line in lines]
    assert len(parsed) == count
    assert set(NAMES) - {"step"} | {"metrics/step"} <= set(parsed[-1])
    hparams = json.loads((logger.run_dir / "hparams.json").read_text())
    assert hparams.keys() == run.hparams.keys() == memory.hparams.keys()
    assert int(hparams["bigger"], 16) == 10**5000 and hparams["big"] == 10**400
    shown = capsys.readouterr().out
    assert all(c.isprintable() for line in shown.split("\n") for c in line)
    assert shown.count("neighbor=") == count


PROGRAM = """
    import sys, warnings
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from tests.backends.test_odd import log_odd
    import lerax_dist as ld
    warnings.simplefilter("ignore")
    import os
    os.chdir(sys.argv[2])
    log_odd([WandbBackend("p", quiet=True)])
"""


def test_no_name_or_value_costs_a_row_or_a_summary_at_wandb(tmp_path):
    run(PROGRAM, isolated(tmp_path), str(Path(__file__).parents[2]), str(tmp_path))
    (path,) = files_of_runs(tmp_path)
    found = read_wandb(path)
    count = len(NAMES) + len(STEPS)
    assert sum("neighbor" in row for row in found.rows) == count
    names = {name.encode("utf-8", "backslashreplace").decode() for name in NAMES}
    own = {"_step", "_timestamp", "_runtime", "_wandb", "global_step"}
    # The reader leaves out what begins with an underscore, which W&B has as its own.
    expected = {name for name in names - own if name[0] != "_"} | {f"metrics/{n}" for n in own}
    whole = [row for row in found.rows if len(row) > 5 and "neighbor" in row]
    assert len(whole) == len(STEPS) and all(expected <= set(row) for row in whole)
    assert found.summary["neighbor"] == 1.0
    for name in ("c.d_loss", "c\\d_loss", "ü_loss", "a//loss"):
        assert "min" in found.summary[name], name
    assert found.summary["c*_loss"] == 0.5
    assert found.config["half"] == "\\ud800" and found.config["metrics/_wandb"] == 1
    assert (found.config["value 2"], found.config["value 3"]) == ("nan", "inf")


def test_a_hyperparameter_with_a_name_of_wandbs_own_is_renamed():
    assert nested({"_wandb": 1, "a": 2}) == {"metrics/_wandb": 1, "a": 2}


def test_the_config_of_the_backend_takes_what_hparams_takes(tmp_path):
    backend = ld.WandbBackend(config={"dtype": np.float32, "a": {"api_key": "s3cr3t"}})
    assert backend._init["config"] == {"dtype": "float32", "a": {"api_key": "***"}}
