"""`scope="process"`: one program per process, one run, the numbers of one program over all."""

from pathlib import Path

import pytest

from tests.multiprocess import scenario
from tests.multiprocess.launch import launch
from tests.multiprocess.test_numbers import check_rows
from tests.readers import current_rows, event_rows, journal_records, journal_rows, without_gauges

WORKER = Path(__file__).parent / "workers" / "own_programs.py"


def start(name, tmp_path, how, *rest, processes, devices=1):
    launcher = "explicit" if how == "jax" else "openmpi"
    return launch(
        WORKER, name, str(tmp_path), how, *rest,
        processes=processes, devices=devices, launcher=launcher, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "processes", "devices", "together"), [("mpi", 4, 1, 1), ("jax", 2, 2, 7)]
)
def test_the_rows_are_those_of_one_program_on_the_same_data(
    tmp_path, how, processes, devices, together
):
    results = start("known", tmp_path, how, str(together), processes=processes, devices=devices)
    expected = scenario.expected_rows()
    for mode in ("shard_map", "jit"):
        check_rows(journal_rows(tmp_path / mode), expected)
        check_rows(event_rows(tmp_path / mode), expected)
        opened = journal_records(tmp_path / mode)[0].body
        assert opened["scope"] == "process"
        assert opened["devices_per_process"] == [devices] * processes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jit", "shard_map"]
    for result in results:
        assert result.report["failures"] == {"shard_map": [], "jit": []}


@pytest.mark.parametrize("how", ["mpi", "jax"])
def test_a_plain_loop_logs_the_mean_and_names_who_logs_other_metrics(tmp_path, how):
    writer, *others = start("loop", tmp_path, how, processes=3)
    rows = journal_rows(tmp_path / "loop")
    assert [step for step, _ in rows] == list(range(50))
    for step, row in rows:
        # Without the share of process 2, which has a metric that process 0 lacks.
        assert row == {"rank": 0.5 if step == 30 else 1.0, "same": step}
    (text,) = writer.report["failures"]
    assert text.startswith("process 2 (") and "sent the metrics more" in text
    assert all(other.report["failures"] == [] for other in others)


@pytest.mark.parametrize("how", ["mpi", "jax"])
def test_nothing_is_lost_without_close(tmp_path, how):
    start("exits", tmp_path, how, processes=2)
    rows = journal_rows(tmp_path / "exits")
    assert rows == [(step, {"rank": 0.5}) for step in range(100)]
    assert journal_records(tmp_path / "exits")[-1].body["failures"] == []


def test_a_process_that_leaves_early_does_not_hold_the_others(tmp_path):
    writer, failed = start("leaves", tmp_path, "jax", processes=2)
    rows = journal_rows(tmp_path / "leaves")
    assert [(step, row["rank"]) for step, row in rows] == [
        (step, 0.5 if step < 10 else 0.0) for step in range(20)
    ]
    (text,) = writer.report["failures"]
    assert text.startswith("process 1 (") and "ended its run as failed" in text
    assert failed.report["failures"] == []


@pytest.mark.parametrize("how", ["mpi", "jax"])
def test_a_run_goes_on_from_a_state_that_is_the_same_on_all(tmp_path, how):
    said = [result.report for result in start("goes_on", tmp_path, how, processes=2)]
    assert said[0]["state"] == said[1]["state"]
    for each in said:
        assert (each["place"], each["failures"]) == (["goes_on", 2], [])
    rows = current_rows(journal_records(tmp_path / "goes_on"))
    assert [(row.step, without_gauges(row.metrics)) for row in rows] == [
        (step, {"rank": 0.5, "life": 1.0 if step < 10 else 2.0}) for step in range(20)
    ]


def test_a_training_is_as_long_as_those_of_all_processes_however_it_is_known(tmp_path):
    writer, _ = start("totals", tmp_path, "jax", processes=2)
    totals = [call[1] for call in writer.report["calls"] if call[0] == "start"]
    assert totals == [10_000, 2**31]
