"""Values of one process alone, in a run that all write together: merged, or compared."""

from pathlib import Path

import numpy as np
import pytest

from tests.multiprocess.launch import launch
from tests.multiprocess.workers.local import LOSSES, STEPS
from tests.readers import event_rows, journal_records, journal_rows

WORKER = Path(__file__).parent / "workers" / "local.py"


def expected(step, processes):
    parts = [LOSSES[p, step, : 0 if (p, step) == (1, 3) else 5 - p] for p in range(processes)]
    mean = np.concatenate(parts).mean()
    return {
        "mean": mean, "on_device": mean, "plain": step + 0.5,
        "sum/tokens": processes * 2**40 + sum(range(processes)), "sum/shared": 7.0,
        "max": processes - 1.0, "min": 1.0, "last": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(("launcher", "processes"), [("openmpi", 2), ("explicit", 3)])
def test_partials_are_merged_and_what_differs_is_said_once(tmp_path, launcher, processes):
    results = launch(WORKER, str(tmp_path), processes=processes, launcher=launcher, timeout=200)
    writer, *others = (result.report for result in results)

    rows = journal_rows(tmp_path / "merged")
    assert [step for step, _ in rows] == list(range(STEPS))
    for step, row in rows:
        wanted = expected(step, processes)
        assert row.keys() == wanted.keys()
        on_device = row.pop("on_device")
        assert on_device == pytest.approx(wanted.pop("on_device"), rel=1e-5)
        assert row.pop("mean") == pytest.approx(wanted.pop("mean"), rel=1e-12)
        # Numbers of the host keep all their bits.
        assert row == wanted
    events = event_rows(tmp_path / "merged")
    assert [step for step, _ in events] == list(range(STEPS))
    for (_, event), (step, _) in zip(events, rows, strict=True):
        assert event == pytest.approx(expected(step, processes), rel=1e-5)
    assert writer["merged"][1] == []

    late, loss, nan = sorted(writer["differs"][1])
    assert nan.startswith("metrics: 'nan' is nan at step 0")
    assert late.startswith("metrics: 'evaluation/late' differs between processes: 0 on process 0 (")
    assert loss.startswith("metrics: 'loss' differs between processes: 10 on process 0 (")
    other = next(p for p in range(1, processes) if f"{10 * (p + 1)} on process {p} (" in loss)
    assert f"), {10 * (other + 1)} on process {other} (" in loss and "`Mean.of(...)`" in loss
    assert sorted(journal_records(tmp_path / "differs")[-1].body["failures"]) == [late, loss, nan]
    assert {row["loss"] for _, row in journal_rows(tmp_path / "differs") if "loss" in row} == {10.0}

    assert journal_rows(tmp_path / "alone") == [(step, {"loss": step}) for step in range(STEPS)]
    assert writer["alone"][1] == []

    # The others have said that they are at their end.
    rows = journal_rows(tmp_path / "alone_with_partials")
    assert rows == [(step, {"loss": step}) for step in range(STEPS)]
    said = writer["alone_with_partials"][1]
    assert len(said) == processes - 1
    for text in said:
        assert "has ended without sending loss; row 0 and later ones exclude it" in text
    for each in others:
        for scenario in ("merged", "differs", "alone", "alone_with_partials"):
            seconds, failures = each[scenario]
            assert failures == [] and seconds < 5.0
    # Less than any wait for a process would take.
    assert max(writer[name][0] for name in ("merged", "differs", "alone")) < 10.0
