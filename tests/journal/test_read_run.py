"""A run in Python: what was logged comes back, and nothing else, whatever became of the run."""

import subprocess
import sys

import numpy as np
import pytest

import lerax_dist as ld
from lerax_dist.journal import Damage, Event, Row
from tests.journal.journals import age, closed, extend, lines, opened, resumed, row, write


class Stopped(Exception):
    pass


def test_a_run_comes_back_as_it_was_logged(tmp_path):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path, hparams={"lr": 0.5}) as logger:
        for step in range(10):
            logger.log({"train": {"loss": step / 7}}, 2**40 + step)
            if step % 5 == 0:
                logger.log({"eval": {"return": -step}}, 2**40 + step)
    run = ld.read_run(tmp_path / "r")
    assert (run.name, run.state, run.hparams) == ("r", "finished", {"lr": 0.5})
    assert list(run.columns)[:2] == ["train/loss", "eval/return"] and "train/loss" in run
    assert len(run) == 12 and run.steps.dtype == np.int64
    steps, losses = run["train/loss"]
    assert steps.tolist() == [2**40 + step for step in range(10)]
    assert losses.tolist() == [step / 7 for step in range(10)]
    column = run.columns["eval/return"]
    np.testing.assert_array_equal(column[np.isfinite(column)], [0.0, -5.0])
    assert np.isnan(column).sum() == 10 and column.shape == run.times.shape
    assert np.all(np.diff(run.times) >= 0) and run.iterations.tolist() == [-1] * 12
    assert [each.number for each in run.incarnations] == [1]
    assert run.facts["process_count"] == 1 and run.run_id == run.facts["run_id"]


def test_rows_that_a_resumed_run_logged_again_are_left_out(tmp_path):
    """With another interval the second time: steps that only the dead incarnation has go, too."""
    for steps, start in ((range(10), None), ((8, 12), 6)):
        with pytest.raises(Stopped):
            with ld.Logger(
                ld.NoOpBackend(), "r", log_dir=tmp_path, start_step=start, hparams={"n": start}
            ) as logger:
                for step in steps:
                    logger.log({"loss": float(step)}, step)
                    if step == 4:
                        logger.log({"eval": 0.5}, step)
                raise Stopped
    run = ld.read_run(tmp_path / "r")
    assert run["loss"].steps.tolist() == [0, 1, 2, 3, 4, 5, 8, 12]
    assert run["eval"].steps.tolist() == [4]
    assert (run.superseded, run.state, run.hparams) == (4, "failed", {"n": 6})
    assert [(i.number, i.start_step) for i in run.incarnations] == [(1, None), (2, 6)]


def test_a_run_that_is_written_and_one_that_was_killed(tmp_path):
    with ld.Logger(ld.NoOpBackend(), "r", log_dir=tmp_path) as logger:
        logger.log({"loss": 1.0}, 5)
        logger.flush()
        run = ld.read_run(tmp_path / "r")
        assert (run.state, run["loss"].steps.tolist()) == ("running", [5])
    path = write(tmp_path / "killed", [opened("k"), row(1, a=1.0)])
    extend(path, b'{"n":2,"ti')
    age(tmp_path / "killed")
    run = ld.read_run(path)
    assert (run.name, run.state, run.damage) == ("k", "interrupted", Damage(torn=True))


@pytest.mark.parametrize(
    ("content", "state", "damage"),
    [
        (b"", "empty", Damage()),
        (b"\x00" * 5000, "damaged", Damage(torn=True)),
        (b"text\nmore\n", "damaged", Damage(lines=2)),
        (b'{"n":1}\n', "damaged", Damage(lines=1)),
    ],
)
def test_a_file_that_holds_nothing_is_said_to(tmp_path, content, state, damage):
    (tmp_path / "journal.jsonl").write_bytes(content)
    run = ld.read_run(tmp_path)
    assert (run.state, run.damage, len(run), run.columns) == (state, damage, 0, {})
    assert run.present == {} and run.hparams == {} and run.run_id is None
    assert run.to_pandas().shape == (0, 3)


def test_without_a_journal_it_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journal.jsonl in .*`lerax-dist ls LOG_DIR`"):
        ld.read_run(tmp_path)


def test_a_metric_that_no_row_has_is_named_with_those_that_there_are(tmp_path):
    write(tmp_path, [opened(), row(1, loss=1.0, lr=0.1)])
    with pytest.raises(KeyError, match="'los' is not a metric of this run. Its metrics: loss, lr"):
        ld.read_run(tmp_path)["los"]


def test_a_file_that_was_pieced_together_gives_rows_in_their_order(tmp_path):
    data = lines([opened(), *(row(step, a=step, **({"b": 1} if step % 3 else {}))
                              for step in range(50))])  # fmt: skip
    pieces = data.splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(pieces[30:] + pieces[10:40] + pieces[:12]))
    run = ld.read_run(tmp_path)
    assert run["a"].steps.tolist() == run["a"].values.tolist() == list(range(50))
    assert run["b"].steps.tolist() == [step for step in range(50) if step % 3]
    assert run.damage == Damage()


def test_vectors_are_two_dimensional(tmp_path):
    vectors = [np.array([1.0, np.nan]), np.array([3.0, -np.inf])]
    rows: list[Row | Event] = [
        Row.of(1.0, step, step, {"x": 0.5}, {"hist": v}) for step, v in enumerate(vectors)
    ]
    write(tmp_path, [opened(), *rows, row(2, x=1.0), closed()])
    run = ld.read_run(tmp_path)
    assert run["hist"].steps.tolist() == [0, 1]
    np.testing.assert_array_equal(run["hist"].values, vectors)
    np.testing.assert_array_equal(run.columns["hist"], [*vectors, [np.nan, np.nan]])
    assert run.iterations.tolist() == [0, 1, -1]
    table = run.to_pandas()
    np.testing.assert_array_equal(table["hist"][1], vectors[1])
    assert table["hist"][2] is None
    assert table["iteration"].isna().tolist() == [False, False, True]


def test_vectors_of_several_sizes_are_filled_up(tmp_path):
    rows = [Row.of(1.0, size, None, {}, {"v": np.arange(size) + 1.0}) for size in (1, 3, 2)]
    write(tmp_path, [opened(), *rows, row(9, v=5.0)])
    expected = np.array([[1, np.nan, np.nan], [1, 2, 3], [1, 2, np.nan], [5, np.nan, np.nan]])
    np.testing.assert_array_equal(ld.read_run(tmp_path)["v"].values, expected)


def test_a_data_frame_has_a_column_a_metric(tmp_path):
    write(tmp_path, [opened(), row(1, a=1.0), row(2, b=np.inf), resumed(2), row(3, a=3.0)])
    table = ld.read_run(tmp_path).to_pandas()
    assert list(table) == ["step", "time", "iteration", "a"]
    assert table["step"].tolist() == [1, 3] and table["a"].tolist() == [1.0, 3.0]


def test_without_pandas_it_says_how_to_get_it(tmp_path):
    write(tmp_path, [opened(), row(1, a=1.0)])
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "import lerax_dist\n"
        f"run = lerax_dist.read_run({str(tmp_path)!r})\n"
        "print(run['a'].values)\n"
        "run.to_pandas()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[1.]\n"
    assert "`pip install pandas`, or use `run.columns`" in done.stderr


def test_steps_of_any_size_are_exact(tmp_path):
    write(tmp_path, [opened(), row(2**70 + 1, a=1.0), row(2**70 + 2, a=2.0)])
    assert ld.read_run(tmp_path)["a"].steps.tolist() == [2**70 + 1, 2**70 + 2]


def test_many_pieces_of_a_file_are_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr("lerax_dist.journal._reader._CHUNK_BYTES", 1000)
    rows = [row(step, a=step, **{f"m{step % 4}": 1}) for step in range(500)]
    write(tmp_path, [opened(), *rows, closed()])
    run = ld.read_run(tmp_path)
    assert run.steps.tolist() == run["a"].values.tolist() == list(range(500))
    assert run["m3"].steps.tolist() == list(range(3, 500, 4))
