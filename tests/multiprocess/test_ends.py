"""How runs of several processes end: exit statuses, messages, what the journal holds."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest

from tests.multiprocess.launch import Result, launch
from tests.readers import journal_records, journal_rows

WORKER = Path(__file__).parent / "workers" / "ends.py"
# Limits where it is what is tested; a busy machine needs more than these.
HEARTBEAT = {"first": 10, "other": 10, "stall": 10, "stall_1": 10, "stall_last": 10}
SHUTDOWN = {"early": 5}
_LONG = 60
# How the processes end, by test.
WAYS = {
    "own": ("ok", "exit3"),
    "later": ("ok", "later"),
    "status": ("after_1", "exit3"),
    "raise": ("go", "raise", "go"),
    "elsewhere": ("hang", "raise"),
    "first": ("kill", "go", "exit3"),
    "other": ("go", "kill", "ok"),
    "early": ("go", "ok"),
    "stall": ("stall", "on"),
    "stall_1": ("on", "stall"),
    "stall_last": ("stall_last", "ok"),
}


@final
@dataclass(frozen=True)
class Ended:
    """A run that has ended.

    Attributes:
        results: what came of each process.
        folder: the run's log_dir.
    """

    results: list[Result]
    folder: Path

    @property
    def codes(self) -> list[int]:
        """Exit statuses."""
        return [result.returncode for result in self.results]

    def messages(self, process: int) -> str:
        """What lerax_dist wrote to a process's standard error."""
        lines = self.results[process].stderr.splitlines()
        return "\n".join(line for line in lines if line.startswith("lerax_dist: "))

    def check_journal(self) -> None:
        """It holds every iteration that process 0 got out of a collective, and it is right."""
        rows = journal_rows(self.folder / "r")
        mean = (len(self.results) + 1) / 2
        assert rows == [(step, {"mean": mean + step}) for step in range(len(rows))]
        lines = self.results[0].stdout.splitlines()
        reported = [json.loads(line)["steps"] for line in lines if line.startswith('{"process"')]
        assert len(rows) >= reported[-1]


def run(name: str, ways: Sequence[str], folder: Path) -> Ended:
    limits = [str(limit.get(name, _LONG)) for limit in (HEARTBEAT, SHUTDOWN)]
    results = launch(
        *(WORKER, str(folder), *limits, *ways),
        processes=len(ways),
        launcher="explicit",
        check=False,
    )
    return Ended(results, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Ended]]]:
    """Runs that mostly wait, so some go on at the same time."""
    with ThreadPoolExecutor(3) as pool:
        yield {
            name: pool.submit(run, name, ways, tmp_path_factory.mktemp(name))
            for name, ways in WAYS.items()
        }


def test_statuses_are_the_programs_own(runs: dict[str, Future[Ended]]):
    ended = runs["own"].result()
    assert ended.codes == [0, 3]
    assert [ended.messages(0), ended.messages(1)] == ["", ""]
    ended.check_journal()


def test_a_status_of_another_process_is_in_the_record_of_process_0(runs: dict[str, Future[Ended]]):
    ended = runs["status"].result()
    assert ended.codes == [0, 3]
    assert journal_records(ended.folder / "r")[-1].body["state"] == "failed"


def test_process_0_stays_until_the_others_have_finished(runs: dict[str, Future[Ended]]):
    ended = runs["later"].result()
    assert ended.codes == [0, 0]
    assert [ended.messages(0), ended.messages(1)] == ["", ""]
    ended.check_journal()


def test_an_exception_ends_all_and_is_reported_by_all(runs: dict[str, Future[Ended]]):
    ended = runs["raise"].result()
    assert ended.codes == [1, 1, 1]
    assert "ValueError: a wrong turn" in ended.results[1].stderr
    for process in (0, 2):
        assert "process 1 (host " in ended.messages(process)
        assert "has ended: ValueError: a wrong turn" in ended.messages(process)
    ended.check_journal()


def test_a_process_that_does_not_notice_a_failure_is_ended(
    runs: dict[str, Future[Ended]],
):
    ended = runs["elsewhere"].result()
    assert ended.codes == [1, 1]
    assert "has ended: ValueError: a wrong turn" in ended.messages(0)
    assert "cannot continue without the others and exits now, with status 1" in ended.messages(0)
    ended.check_journal()


def test_the_loss_of_process_0_is_named_and_statuses_stay(runs: dict[str, Future[Ended]]):
    ended = runs["first"].result()
    # One in a collective that fails, one that had ended by itself.
    assert ended.codes == [-9, 1, 3]
    for process in (1, 2):
        text = ended.messages(process)
        assert "process 0 (host " in text
        assert "which holds the coordination service, is lost" in text
    ended.check_journal()


def test_a_process_that_was_killed_is_named_by_all(runs: dict[str, Future[Ended]]):
    ended = runs["other"].result()
    assert ended.codes == [1, -9, 0]
    for process in (0, 2):
        text = ended.messages(process)
        assert "process 1 (host " in text and "has sent no heartbeat for " in text
    ended.check_journal()


def test_a_process_that_finishes_early_waits_until_its_timeout(
    runs: dict[str, Future[Ended]],
):
    ended = runs["early"].result()
    assert ended.codes == [1, 0]
    waited = f"has waited `shutdown_timeout_seconds` = {SHUTDOWN['early']} s for process 0"
    assert waited in ended.messages(0) and waited in ended.messages(1)
    ended.check_journal()


@pytest.mark.parametrize(("name", "stalled"), [("stall", 0), ("stall_1", 1), ("stall_last", 0)])
def test_a_stall_is_taken_back_once_the_process_is_heard_again(
    runs: dict[str, Future[Ended]], name: str, stalled: int
):
    ended = runs[name].result()
    assert ended.codes == [0, 0], [result.stderr for result in ended.results]
    assert "the Python threads of this process did not run for " in ended.messages(stalled)
    text = ended.messages(1 - stalled)
    who = f"process {stalled} (host "
    assert who in text and "has sent no heartbeat for " in text
    assert "sends heartbeats again, after " in text
    assert ("its service answers" in text) == (stalled == 0)
    ended.check_journal()
