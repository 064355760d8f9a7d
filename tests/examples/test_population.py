"""Each process runs its own program, and one log has the numbers of all."""

import re

import pytest

from tests.examples.test_examples import start
from tests.readers import journal_records, journal_rows


def test_a_population_over_two_processes_is_one_run(tmp_path):
    arguments = ("--members", "3", "--rows", "40")
    printed, run_dir = start("population.py", tmp_path, *arguments, processes=2)
    rows = journal_rows(run_dir)
    # 20 gradient steps of 3 members in each of 2 processes.
    assert [step for step, _ in rows] == [120 * (i + 1) for i in range(40)]
    for _, row in rows:
        assert row["train/loss_best"] < row["train/loss"] < row["train/loss_worst"]
    # Members with a high learning rate have learned, those with a low one have not.
    assert rows[-1][1]["train/loss_best"] < 0.02 < rows[-1][1]["train/loss_worst"]
    assert journal_records(run_dir)[0].body["scope"] == "process"
    assert journal_records(run_dir)[-1].body == {"state": "finished", "failures": []}
    (found,) = re.findall(r"best member has loss (\S+), with learning rate (\S+)", printed)
    # Printed from the last losses; the row has means over 20 steps, hence the tolerance.
    assert float(found[0]) == pytest.approx(rows[-1][1]["train/loss_best"], abs=1e-4)
    assert 0.001 <= float(found[1]) <= 0.1001
