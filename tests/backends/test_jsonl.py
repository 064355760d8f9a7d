import inspect
import json
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lerax_dist as ld
from lerax_dist.backends import JSONLBackend
from lerax_dist.backends._jsonl import json_row, json_value, video_path


def strict(text: str):
    """Parses JSON that is valid for every parser, not only for Python's."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def read(path: Path) -> list[dict]:
    return [strict(line) for line in path.read_text().splitlines()]


@pytest.fixture
def backend(tmp_path):
    backend = JSONLBackend(tmp_path)
    backend.open("group/run")
    yield backend
    backend.close()


def row(**values: float) -> dict[str, Any]:
    return {name.replace("__", "/"): np.float64(value) for name, value in values.items()}


def test_a_row_is_a_line_with_its_step_first(backend, tmp_path):
    backend.log_scalars(row(train__loss=0.5, a=0.1), step=12)
    text = (tmp_path / "group" / "run" / "metrics.jsonl").read_text()
    assert text == '{"step":12,"train/loss":0.5,"a":0.1}\n'


def test_values_come_back_to_the_last_bit(backend, tmp_path):
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    for step, value in enumerate(values):
        backend.log_scalars({"x": value}, step=2**62 + step)
    lines = read(tmp_path / "group" / "run" / "metrics.jsonl")
    assert [line["x"] for line in lines] == values.tolist()
    assert [line["step"] for line in lines] == [2**62 + step for step in range(50)]


def test_values_that_are_not_finite_are_valid_json(backend, tmp_path):
    inf = float("inf")
    backend.log_scalars(row(a=float("nan"), b=inf, c=-inf), step=1)
    (line,) = read(tmp_path / "group" / "run" / "metrics.jsonl")
    assert line == {"step": 1, "a": None, "b": inf, "c": -inf}


def test_rows_that_come_together_are_a_line_each(backend, tmp_path):
    values = np.array([[0.5, np.nan], [0.25, 2.0]])
    backend.log_rows(("a", "b"), values, [1, 2**70], [0.0, 0.0])
    backend.log_scalars({"a": np.float64(1.0)}, step=3)
    text = (tmp_path / "group" / "run" / "metrics.jsonl").read_text()
    assert text.splitlines() == [
        '{"step":1,"a":0.5,"b":null}',
        f'{{"step":{2**70},"a":0.25,"b":2.0}}',
        '{"step":3,"a":1.0}',
    ]


def recipe_rows(folder: Path, monkeypatch) -> list[dict]:
    """Rows by the recipe of the docstring, run as it is there."""
    _, recipe = re.findall(r"```python\n(.*?)```", inspect.getdoc(JSONLBackend) or "", re.DOTALL)
    assert '"logs/known/metrics.jsonl"' in recipe
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(recipe), names)
    return names["rows"]


def test_the_recipe_leaves_superseded_rows_out(tmp_path, monkeypatch):
    first = ld.Logger(JSONLBackend(tmp_path / "logs"), "known")
    for step in range(10):
        first.log({"x": float(step)}, step)
    first.close(failed=True)
    # It resumes with another log interval: 6, 7 and 9 are not logged again.
    with ld.Logger(JSONLBackend(tmp_path / "logs"), "known", start_step=6) as second:
        for step in (8, 12):
            second.log({"x": step + 0.5}, step)
    assert [(row["step"], row["x"]) for row in recipe_rows(tmp_path, monkeypatch)] == [
        *((step, float(step)) for step in range(6)),
        *((8, 8.5), (12, 12.5)),
    ]


def test_the_recipe_keeps_rows_of_training_and_evaluation_at_one_step(tmp_path, monkeypatch):
    with ld.Logger(JSONLBackend(tmp_path / "logs"), "known") as logger:
        logger.log({"train": {"loss": 0.5}}, 10)
        logger.log({"eval": {"loss": 0.25}}, 10)
    assert recipe_rows(tmp_path, monkeypatch) == [
        {"step": 10, "train/loss": 0.5},
        {"step": 10, "eval/loss": 0.25},
    ]


def test_the_recipe_leaves_a_damaged_line_out(tmp_path, monkeypatch):
    folder = tmp_path / "logs" / "known"
    folder.mkdir(parents=True)
    lines = b'{"step":1,"x":1.0}\n{"step":2,"x"\n\xff\x00\n{"step":3,"x":null}\n{"step":4,'
    (folder / "metrics.jsonl").write_bytes(lines)
    assert recipe_rows(tmp_path, monkeypatch) == [{"step": 1, "x": 1.0}, {"step": 3, "x": None}]


def test_a_resumed_run_has_a_line_that_says_so(backend, tmp_path):
    backend.log_scalars(row(a=1.0), step=5)
    backend.on_resume(5)
    backend.log_scalars(row(a=2.0), step=5)
    text = (tmp_path / "group" / "run" / "metrics.jsonl").read_text()
    assert text == '{"step":5,"a":1.0}\n{"resume":5}\n{"step":5,"a":2.0}\n'


def test_vectors_are_lists_in_a_line_with_the_step(backend, tmp_path):
    backend.log_scalars(row(a=1.0), step=5)
    backend.log_vectors({"h": np.array([0.5, 2.0]), "one": np.array([1.0])}, 5)
    backend.log_vectors({"h": np.array([np.nan, -np.inf])}, 6)
    lines = (tmp_path / "group" / "run" / "metrics.jsonl").read_text().splitlines()
    assert lines[1] == '{"step":5,"h":[0.5,2.0],"one":[1.0]}'
    assert [strict(line) for line in lines] == [
        {"step": 5, "a": 1.0},
        {"step": 5, "h": [0.5, 2.0], "one": [1.0]},
        {"step": 6, "h": [None, -np.inf]},
    ]


def test_pandas_reads_the_file(backend, tmp_path):
    pandas = pytest.importorskip("pandas")
    backend.log_hparams({"lr": 1e-3})
    backend.log_scalars(row(a=float("nan"), b=1.5), step=1)
    backend.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), 1, 50.0)
    backend.log_scalars(row(a=float("-inf"), b=2.5), step=2)
    frame = pandas.read_json(tmp_path / "group" / "run" / "metrics.jsonl", lines=True)
    assert list(frame.columns) == ["step", "a", "b"]
    assert frame["step"].tolist() == [1, 2]
    assert np.isnan(frame["a"][0]) and frame["a"][1] == -np.inf


def test_a_metric_called_step_does_not_take_the_place_of_the_step():
    assert strict(json_row(row(step=0.5), 7)) == {"step": 7, "metrics/step": 0.5}
    both = json_row({"step": np.array(0.5), "metrics/step": np.array(0.25)}, 7)
    assert strict(both) == {"step": 7, "metrics/step_": 0.5, "metrics/step": 0.25}


@pytest.mark.parametrize("name", ['quo"te', "line\nfeed", "ümläut", "back\\slash", "\u2028"])
def test_any_name_stays_on_one_line_and_comes_back(name):
    text = json_row({name: np.array(1.0)}, 0)
    assert len(text.splitlines()) == 1
    assert strict(text) == {"step": 0, name: 1.0}


def test_hyperparameters_are_a_file_of_their_own(backend, tmp_path):
    backend.log_hparams({"lr": np.float64(0.5), "clip": float("inf"), "name": "x", "on": True})
    path = tmp_path / "group" / "run" / "hparams.json"
    expected = {"lr": 0.5, "clip": float("inf"), "name": "x", "on": True}
    assert strict(path.read_text()) == expected
    assert sorted(file.name for file in path.parent.iterdir()) == ["hparams.json", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, float("nan")], "[1, null]"),
        ({"a": {"b": float("inf")}}, '{"a": {"b": 1e999}}'),
        (np.arange(3), "[0, 1, 2]"),
        (np.array(2.5), "2.5"),
        (np.int64(2**60), str(2**60)),
        (Path("a/b"), '"a/b"'),
        (None, "null"),
    ],
)
def test_a_hyperparameter_of_any_kind_is_valid_json(value, text):
    assert json_value(value) == text


def test_a_video_is_a_gif_named_by_tag_and_step(backend, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    backend.log_video("eval/video", frames, step=42, fps=50.0)
    path = tmp_path / "group" / "run" / "videos" / "eval" / "video" / "000000000042.gif"
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 5


@pytest.mark.parametrize("tag", ["../../x", "/etc/x", "a//b", ".", "..", "", "a/../b", "a b%"])
def test_no_tag_leads_out_of_the_folder(tag):
    folder = Path("/run/videos")
    path = video_path(folder, tag, 1)
    assert ".." not in path.parts
    assert path.is_relative_to(folder)


def test_different_tags_have_different_files():
    tags = ["a/b", "a_b", "a b", "a%2Fb", "a//b", "..", "%2E%2E", ".", "", "%"]
    assert len({video_path(Path("v"), tag, 1) for tag in tags}) == len(tags)


def test_opening_again_adds_to_the_rows(tmp_path):
    for step in range(3):
        backend = JSONLBackend(tmp_path)
        backend.open("run")
        backend.log_scalars(row(a=1.0), step=step)
        backend.close()
    assert [line["step"] for line in read(tmp_path / "run" / "metrics.jsonl")] == [0, 1, 2]


def test_rows_outlive_a_killed_process(tmp_path):
    program = """
        import os, signal, sys
        import numpy as np
        from lerax_dist.backends import JSONLBackend
        backend = JSONLBackend(sys.argv[1])
        backend.open("run")
        for step in range(100):
            backend.log_scalars({"a": np.float64(step)}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    lines = read(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(100))


def test_what_is_not_open_refuses_rows(tmp_path):
    backend = JSONLBackend(tmp_path)
    backend.open("run")
    with pytest.raises(RuntimeError, match="other"):
        backend.open("other")
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_scalars(row(a=1.0), step=0)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_hparams({})
    with pytest.raises(RuntimeError, match="must be open"):
        backend.log_video("v", np.zeros((1, 2, 2, 3), np.uint8), 0, 50.0)
    with pytest.raises(RuntimeError, match="must be open"):
        backend.on_resume(0)


def test_log_dir_can_be_read(tmp_path):
    assert JSONLBackend(str(tmp_path)).log_dir == tmp_path
    assert JSONLBackend().log_dir == Path("logs")


def test_the_file_of_hyperparameters_is_replaced_whatever_it_holds(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hparams.json").write_text('{"half')
    backend = JSONLBackend(tmp_path)
    backend.open("run")
    backend.log_hparams({"seed": 1, "rate": 0.5})
    backend.log_hparams({"best": 2, "rate": 0.25})
    backend.close()
    told = json.loads((tmp_path / "run" / "hparams.json").read_text())
    assert told == {"rate": 0.25, "best": 2}


def test_the_folder_stays_where_it_was_when_the_program_changes_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = JSONLBackend("logs")
    backend.open("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    backend.log_hparams({"seed": 1})
    backend.close()
    assert (tmp_path / "logs" / "run" / "hparams.json").exists()
