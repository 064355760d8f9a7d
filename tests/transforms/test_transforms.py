"""Whatever a program is compiled in, its rows are those of NumPy; read back from the files.

Every form of docs/transforms.md is a program of `programs.py`. Two splits of the same data run in
`make test`, the others in `make full`.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.multiprocess.launch import ROOT, launch
from tests.readers import event_rows, journal_rows
from tests.transforms.programs import PROGRAMS, Row, expected, expected_emitted

RUN = Path(__file__).parent / "run.py"
_full = pytest.mark.full
# Processes, devices of each, and whose order of operations: a TPU's merges outside of branches.
SPLITS = [
    (1, 4, "here"),
    (2, 2, "here"),
    (2, 2, "tpu"),
    *(pytest.param((count, 1, "here"), marks=_full) for count in (1, 4)),
]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(
    scope="module", params=SPLITS, ids=lambda split: f"{split[0]}x{split[1]}-{split[2]}"
)
def split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Processes, devices of each, the folder of the runs, and what failed, by program."""
    processes, devices, platform = request.param
    folder = tmp_path_factory.mktemp("runs")
    results = launch(RUN, str(folder), platform, processes=processes, devices=devices, timeout=500)
    return processes, devices, folder, [result.report["errors"] for result in results]


def check(rows: list[Row], wanted: list[Row]) -> None:
    assert [step for step, _ in rows] == [step for step, _ in wanted]
    for (step, row), (_, want) in zip(rows, wanted, strict=True):
        row = {name: value for name, value in row.items() if not name.startswith("time/")}
        assert sorted(row) == sorted(want), step
        for name, value in want.items():
            np.testing.assert_allclose(row[name], value, rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_rows_of_a_program_are_right(split: Any, name: str) -> None:
    processes, devices, folder, errors = split
    program = PROGRAMS[name]
    if not program.can_run(processes * devices, processes):
        return
    for error in errors:
        assert name not in error, error[name]
    run_dir = folder / program.folder
    for rows in (journal_rows(run_dir), event_rows(run_dir)):
        emitted = [row for row in rows if any(n.startswith("eval/") for n in row[1])]
        check([row for row in rows if row not in emitted], expected(program.iterations))
        check(emitted, expected_emitted(program.iterations))


def test_the_page_has_a_row_for_every_program() -> None:
    page = (ROOT / "docs" / "transforms.md").read_text()
    assert re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE) == [*PROGRAMS]
