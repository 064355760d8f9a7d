"""The numbers are the same wherever they are computed, and they are right."""

from pathlib import Path

import numpy as np
import pytest

from tests.multiprocess import scenario
from tests.multiprocess.launch import launch
from tests.readers import event_rows, journal_records, journal_rows

WORKER = Path(__file__).parent / "workers" / "known_run.py"
SPLITS = [(1, 1), (1, 4), (2, 2), (4, 1)]
MODES = ("shard_map", "pmap", "jit")


def start(tmp_path, processes, devices, log_interval=1, ending="close", together=1):
    return launch(
        WORKER,
        str(tmp_path),
        str(log_interval),
        ending,
        str(together),
        processes=processes,
        devices=devices,
        timeout=240,
    )


def check_rows(rows, expected, tolerance=1e-6):
    assert [step for step, _ in rows] == [step for step, _ in expected]
    for (step, got), (_, want) in zip(rows, expected, strict=True):
        timeless = {k: v for k, v in got.items() if not k.startswith("time/")}
        assert sorted(timeless) == sorted(want), step
        for name, value in want.items():
            np.testing.assert_allclose(
                timeless[name], value, rtol=tolerance, atol=1e-6, err_msg=f"{name} at step {step}"
            )


@pytest.mark.parametrize(("processes", "devices"), SPLITS)
def test_rows_equal_the_reference_for_every_split_and_every_way_to_run(
    tmp_path, processes, devices
):
    results = start(tmp_path, processes, devices)
    assert [r.report["devices"] for r in results] == [processes * devices] * processes
    expected = scenario.expected_rows()
    assert len(expected) == scenario.ITERATIONS
    for mode in MODES:
        check_rows(journal_rows(tmp_path / mode), expected)
        check_rows(event_rows(tmp_path / mode), expected)
        assert all("time/iteration_seconds" in row for _, row in journal_rows(tmp_path / mode))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(MODES)
    for mode in MODES:
        files = sorted(path.name for path in (tmp_path / mode).iterdir())
        assert len(files) == 4
        assert files[0].startswith("events.out.tfevents.")
        assert files[1:] == ["journal.jsonl", "metrics.jsonl", "run.json"]
    writer, *others = [result.report for result in results]
    for mode in MODES:
        assert writer["modes"][mode]["backends"] == ["TensorBoardBackend", "JSONLBackend"]
        assert writer["modes"][mode]["failures"] == []
        for other in others:
            assert other["modes"][mode] == {
                **writer["modes"][mode],
                "backends": ["NoOpBackend", "NoOpBackend"],
            }
    for other in others:
        assert other["imported"] == []
        # Of the launch, not of a logger: one that watches the others, and its messages.
        assert set(other["threads"]) <= {"lerax_dist-heartbeat", "lerax_dist-store"}


@pytest.mark.parametrize(
    ("log_interval", "ending", "together"), [(7, "close", 1), (1, "exit", 7), (3, "exit", 4)]
)
def test_no_row_is_missing_or_doubled_with_an_interval_and_without_close(
    tmp_path, log_interval, ending, together
):
    start(tmp_path, 2, 2, log_interval, ending, together)
    expected = scenario.expected_rows()[log_interval - 1 :: log_interval]
    for mode in MODES:
        check_rows(journal_rows(tmp_path / mode), expected)
        check_rows(event_rows(tmp_path / mode), expected)
        assert journal_records(tmp_path / mode)[-1].body["state"] == "finished"


def test_the_name_is_process_0s_on_every_process(tmp_path):
    results = start(tmp_path, 2, 1, ending="names")
    for result in results:
        assert [result.report["modes"][mode]["name"] for mode in MODES] == [
            f"{mode}-0" for mode in MODES
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{m}-0" for m in MODES)
