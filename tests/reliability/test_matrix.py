"""A few trials of each fault of `make reliability`, and whether the audit would notice a loss."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lerax_dist as ld
from tests.reliability.audit import Verdict, audit, undisturbed
from tests.reliability.faults import FAULTS
from tests.reliability.worker import ATTEMPT, SENT, X, value_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What was wrong, by fault. In one process that forks, so that starts are cheap."""
    path = tmp_path_factory.mktemp("matrix") / "wrong.json"
    command = [sys.executable, "-m", "tests.reliability", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert path.exists(), done.stderr
    print(done.stdout)
    return json.loads(path.read_text())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [fault.name for fault in FAULTS if fault.quick])
def test_a_fault_costs_no_row_inside_the_promise_and_ends_no_training(
    wrong: dict[str, list[str]], name: str
):
    assert wrong[name] == []


def test_each_fault_has_a_name_of_its_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


STEPS = 20


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a file of what was sent."""
    backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path)]
    with ld.Logger(backends, "run", log_dir=tmp_path) as logger:
        for step in range(STEPS):
            logger.log({X: value_of(step), ATTEMPT: 0.0}, step)
    write_sent(tmp_path, STEPS)
    return tmp_path / "run"


def write_sent(folder: Path, count: int) -> None:
    records = [SENT.pack(step, 0, step + 1.0, 0.001) for step in range(count)]
    (folder / "sent-0000").write_bytes(b"".join(records))


def judge(run: Path, **options) -> Verdict:
    return audit(run, run.parent, **options)


def test_a_whole_run_is_right(run: Path):
    assert judge(run) == Verdict(STEPS, STEPS, 0, [], 0.001)


@pytest.mark.parametrize(("name", "files"), [("journal", 2), ("metrics", 1)])
@pytest.mark.parametrize("harm", ["lost", "twice", "wrong", "out of order"])
def test_the_audit_notices(run: Path, name: str, files: int, harm: str):
    path = run / f"{name}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"step":7,' in line)
    match harm:
        case "lost":
            del lines[at]
        case "twice":
            lines.insert(at, lines[at])
        case "wrong":
            lines[at] = lines[at].replace(b"3.5", b"4.5")
        case "out of order":
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
    path.write_bytes(b"".join(lines))
    verdict = judge(run)
    if name == "journal":
        # `read_run` itself leaves out what comes twice, and puts rows in their order.
        harm = "lost" if harm == "wrong" else harm
        assert len(verdict.wrong) == (files if harm == "lost" else 1)
    assert all(harm in text for text in verdict.wrong) and verdict.wrong


def test_a_row_that_was_not_sent_is_invented(run: Path):
    write_sent(run.parent, STEPS - 2)
    verdict = judge(run)
    assert verdict.lost == 0
    # The one after the last may have been under way.
    assert all("invented 1 rows (step 19" in text for text in verdict.wrong)
    assert len(verdict.wrong) == 4


def test_rows_that_were_sent_right_before_a_kill_are_not_promised(run: Path):
    path = run / "metrics.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    assert judge(run).lost == 3
    assert judge(run, killed={0: STEPS - 1.5}) == Verdict(STEPS, STEPS - 3, 0, [], 0.001)


@pytest.mark.parametrize(
    ("troubles", "at"),
    [
        ([], 10.0),
        ([(3.0, 8.9)], 10.0),  # over more than a second before
        ([(7.0, 11.0)], 7.0),  # lasts
        ([(7.0, 9.5)], 7.5),
        ([(7.0, 9.5), (8.0, 12.0)], 7.0),
        ([(5.0, 6.8), (7.0, 9.5)], 5.7),
    ],
)
def test_a_second_before_a_kill_is_one_in_which_nothing_stood_in_the_way(
    troubles: list[tuple[float, float]], at: float
):
    assert undisturbed(10.0, troubles) == pytest.approx(at)
