"""Pictures and tables hold what the journals hold."""

import csv
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from lerax_dist.cli._curves import choose, read_bands
from lerax_dist.cli._plot import curves_of, draw_figure
from PIL import Image

import lerax_dist as ld
from lerax_dist.cli import main
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


def test_curves_are_the_rows_that_stand(runs):
    curves = {
        name: read_bands(runs / name / "journal.jsonl", ["episode/return", "wide", "none"])
        for name in ("a", "b")
    }
    shown = curves_of(draw_figure(curves, ["episode/return", "wide"]))
    assert list(shown) == ["episode/return", "wide"]
    for metric, lines in shown.items():
        for name in ("a", "b"):
            rows = [one for one in standing(runs / name) if metric in one.metrics]
            expected = [(one.step, one.metrics[metric]) for one in rows]
            np.testing.assert_array_equal(lines[name], expected)
    assert len(shown["wide"]["a"]) == 25
    band = curves["a"]["episode/return"]
    np.testing.assert_allclose([band.low, band.high], [band.values - 1, band.values + 2])
    band = curves["a"]["wide"]
    np.testing.assert_allclose([band.low, band.high], [band.values - 0.25, band.values + 0.25])


def test_a_band_is_drawn_where_there_is_one(runs):
    curves = {"a": read_bands(runs / "a" / "journal.jsonl", ["episode/return", "train/loss"])}
    with_band, without = draw_figure(curves, ["episode/return", "train/loss"]).axes[:2]
    assert len(without.collections) == 0
    (band,) = with_band.collections
    edges = np.asarray(band.get_paths()[0].vertices)
    assert (edges[:, 1].min(), edges[:, 1].max()) == (-1.0, 96 / 3 + 1 + 2)


def test_many_points_are_thinned_to_their_means_and_outermost_edges(tmp_path):
    values = np.sin(np.arange(10_000))
    rows = [row(i, x=v, x_min=v - 1, x_max=v + 1) for i, v in enumerate(values)]
    band = read_bands(write(tmp_path, [opened(), *rows]), ["x"])["x"]
    assert len(band.steps) == 2000
    np.testing.assert_allclose(band.values, values.reshape(2000, 5).mean(axis=1))
    np.testing.assert_allclose(band.low, values.reshape(2000, 5).min(axis=1) - 1)
    np.testing.assert_array_equal(band.steps, np.arange(10_000).reshape(2000, 5).mean(axis=1))


def test_pictures_are_pictures(runs, tmp_path, capsys):
    both = [str(runs / "a"), str(runs / "b")]
    png, svg = tmp_path / "o.png", tmp_path / "o.svg"
    assert main(["watch", *both, "--plot", str(png), "episode/*", "train/loss"]) == 0
    with Image.open(png) as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours  # a curve of each run
    assert main(["watch", *both, "--plot", str(svg)]) == 0
    assert ElementTree.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "episode/return, train/loss of 2 runs" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.png", "o.svg"]


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


def test_without_the_package_it_says_how_to_get_it(runs, tmp_path):
    program = (
        "import sys; sys.modules['matplotlib'] = sys.modules['pyarrow'] = None\n"
        "from lerax_dist.cli import main\n"
        f"main(['watch', {str(runs / 'a')!r}, '--plot', {str(tmp_path / 'o.png')!r}])\n"
        f"main(['watch', {str(runs / 'a')!r}, '--export', {str(tmp_path / 'o.parquet')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert "pip install 'lerax-dist[plot]'" in done.stderr
    assert "pip install 'lerax-dist[parquet]'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plot", "o.gif"], "must end in .png, .svg, .pdf"),
        (["--export", "o.xls"], "must end in .csv, .parquet"),
        (["--plot", "{out}", "episod"], "there is no metric 'episod'. There are: train/loss"),
    ],
)
def test_what_cannot_be_is_said(runs, tmp_path, capsys, arguments, said):
    arguments = [one.format(out=tmp_path / "o.png") for one in arguments]
    assert main(["watch", str(runs / "a"), *arguments]) == 1
    assert said in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--plot", str(tmp_path / "o.png")]) == 1
    assert "there is no journal.jsonl in" in capsys.readouterr().err


def test_the_metrics_that_patterns_mean():
    names = ["a/x", "a/x_min", "a/x_max", "a/y", "lerax_dist/lag/B", "b/loss"]
    assert choose(names, ["a/*"]) == ["a/x", "a/y"]
    assert choose(names, ["a/y", "a/x_min", "a/*"]) == ["a/y", "a/x_min", "a/x"]
    assert choose(names, []) == ["b/loss"]
    assert choose(names, ["lerax_dist/*"]) == ["lerax_dist/lag/B"]
    assert choose([*names, "episode/return"], []) == ["episode/return"]
    assert choose([], []) == []
