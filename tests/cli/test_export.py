"""A table holds what the journals hold."""

import csv
import subprocess
import sys

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.cli import main
from lerax_dist.journal import Row
from tests.journal.journals import opened, row, write
from tests.readers import current_rows, journal_records


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs; the first was interrupted and went on."""
    log_dir = tmp_path_factory.mktemp("logs")
    for name, parts in {"a": (range(0, 60, 2), range(40, 100, 2)), "b": (range(0, 50, 2),)}.items():
        for number, steps in enumerate(parts):
            failing = number + 1 < len(parts)
            try:
                with ld.Logger(ld.NoOpBackend(), name, log_dir=log_dir) as logger:
                    for step in steps:
                        metrics = {"train/loss": 1 / (step + 1 + number)}
                        if step % 4 == 0:
                            value = step / 3 + number
                            metrics |= {"episode/return": value, "episode/return_std": 0.1 * step}
                            metrics |= {"episode/return_min": value - 1, "wide": value}
                            metrics |= {"episode/return_max": value + 2, "wide_std": 0.25}
                        logger.log(metrics, step)
                    if failing:
                        raise KeyError
            except KeyError:
                pass
    return log_dir


def standing(run_dir):
    return current_rows(journal_records(run_dir))


def test_a_csv_holds_every_row_to_the_last_digit(runs, tmp_path):
    out = tmp_path / "o.csv"
    assert main(["watch", str(runs / "a"), str(runs / "b"), "--export", str(out)]) == 0
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    expected = [(name, one) for name in ("a", "b") for one in standing(runs / name)]
    assert len(found) == len(expected) == 75
    for line, (name, one) in zip(found, expected, strict=True):
        head = (line.pop("run"), int(line.pop("step")), float(line.pop("time")))
        assert head == (name, one.step, one.time)
        assert line.pop("iteration") == ""
        assert {key: float(value) for key, value in line.items() if value} == one.metrics


def test_a_parquet_file_holds_every_row(runs, tmp_path):
    import pyarrow.parquet

    out = tmp_path / "o.parquet"
    assert main(["watch", str(runs / "a"), "--export", str(out)]) == 0
    found = pyarrow.parquet.read_table(out).to_pylist()
    for line, one in zip(found, standing(runs / "a"), strict=True):
        assert (line["run"], line["step"], line["time"]) == ("a", one.step, one.time)
        metrics = {k: v for k, v in line.items() if v is not None and k in one.metrics}
        assert metrics == one.metrics


def test_values_that_are_not_finite_come_through(tmp_path):
    write(tmp_path / "r", [opened(), row(1, a=np.nan, b=-np.inf, c=1e300), row(2, a=1.0)])
    assert main(["watch", str(tmp_path / "r"), "--export", str(tmp_path / "o.csv")]) == 0
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert [line.split(",")[4:] for line in lines[1:]] == [
        ["nan", "-inf", "1e+300"],
        ["1.0", "", ""],
    ]


def test_vectors_are_lists(tmp_path):
    import pyarrow.parquet

    values = Row.of(1.0, 1, 7, {"a": 0.5}, {"v": np.array([1.0, 2.5])})
    write(tmp_path / "r", [opened(), values, row(2, a=1.0)])
    assert main(["watch", str(tmp_path / "r"), "--export", str(tmp_path / "o.csv")]) == 0
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert lines[1:] == ['r,1,1.0,7,0.5,"[1.0, 2.5]"', lines[2]] and lines[2].endswith(",,1.0,")
    assert main(["watch", str(tmp_path / "r"), "--export", str(tmp_path / "o.parquet")]) == 0
    found = pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert [(one["iteration"], one["v"]) for one in found] == [(7, [1.0, 2.5]), (None, None)]


def test_without_pyarrow_it_says_how_to_get_it(runs, tmp_path):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from lerax_dist.cli import main\n"
        f"main(['watch', {str(runs / 'a')!r}, '--export', {str(tmp_path / 'o.parquet')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert "pip install pyarrow" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_said(runs, tmp_path, capsys):
    assert main(["watch", str(runs / "a"), "--export", str(tmp_path / "o.xls")]) == 1
    assert "must end in .csv or .parquet" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--export", str(tmp_path / "o.csv")]) == 1
    assert "there is no journal.jsonl in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_named(runs, tmp_path, capsys):
    out = tmp_path / "none" / "o.csv"
    assert main(["watch", str(runs / "a"), "--export", str(out)]) == 1
    assert f"{out.parent} does not" in capsys.readouterr().err
