"""`emit` over processes and devices gives the numbers of NumPy, however the program runs."""

from pathlib import Path

import numpy as np
import pytest

from tests.multiprocess.launch import launch
from tests.multiprocess.workers.emits import DATA, STEPS
from tests.readers import event_rows, journal_rows

WORKER = Path(__file__).parent / "workers" / "emits.py"
WAYS = ("jit", "checked", "unchecked", "pmap", "each")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emits")
    found = launch(WORKER, str(folder), processes=2, devices=2, launcher="explicit", timeout=240)
    return folder, found


def expected():
    rows = []
    for i, values in enumerate(DATA.astype(np.float64)):
        row = {
            "mean": values.mean(), "sum": values.sum(), "worst": values.max(),
            "best": values.min(), "first": values[0, 0], "plain": values.mean(),
        }  # fmt: skip
        rows.append((i * 2**28, {f"train/{name}": value for name, value in row.items()}))
    return rows


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("read", [journal_rows, event_rows])
def test_rows_equal_numpy(results, how, read):
    rows = read(results[0] / how)
    found = {
        kind: [row for row in rows if kind in row[1]] for kind in ("train/sum", "eval/highest")
    }
    assert [step for step, _ in found["train/sum"]] == [step for step, _ in expected()]
    for (_, got), (step, want) in zip(found["train/sum"], expected(), strict=True):
        assert got.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=2e-5, err_msg=f"{name}, {step}")
    assert [step for step, _ in found["eval/highest"]] == list(range(0, STEPS, 5))
    for step, row in found["eval/highest"]:
        assert row == {"eval/highest": pytest.approx(DATA[step].max())}
    alone = [(step, row) for step, row in rows if "alone" in row]
    assert alone == ([(3, {"alone": 0.5})] if how == "each" else [])
    assert len(rows) == STEPS + STEPS // 5 + len(alone)


def test_nothing_fails_and_what_cannot_be_right_is_refused_by_name(results):
    for result in results[1]:
        said = result.report["said"]
        assert {how: said[how] for how in WAYS} == {how: [] for how in WAYS}
        for how in WAYS[:-1]:
            assert (
                "`emit` was called outside of `jit` in a run of 2 proc" in said[f"{how}: refused"]
            )
