"""A host that is cut off in the middle of a run: what is logged, how soon, and what is on disk."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest

from tests.multiprocess.hosts import Hosts, made_hosts, obstacle
from tests.multiprocess.launch import environment
from tests.multiprocess.processes import run_all, shown
from tests.readers import journal_rows

WORKER = Path(__file__).parent / "workers" / "ends.py"
HOSTS = 3
# JAX ends all after half of it at the earliest; a busy machine needs more than 1 s to report.
HEARTBEAT = 10
# JAX's limit, the delay of SIGABRT, and a machine that is busy with other tests.
LIMIT = HEARTBEAT + 6 + 15

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle())


@final
@dataclass(frozen=True)
class Cut:
    """A run of which one host was cut off.

    Attributes:
        names: names of the hosts.
        seconds: from the cut to the end of the last process.
        codes: exit statuses.
        outputs: output and error output of each process.
        rows: the journal.
    """

    names: list[str]
    seconds: float
    codes: list[int]
    outputs: list[tuple[str, str]]
    rows: list[tuple[int, dict[str, float]]]

    def messages(self, process: int) -> str:
        """What lerax_dist wrote to a process's standard error."""
        lines = self.outputs[process][1].splitlines()
        return "\n".join(line for line in lines if line.startswith("lerax_dist: "))

    def steps(self, process: int) -> int:
        """Number of iterations that a process has got out of the collective."""
        lines = self.outputs[process][0].splitlines()
        reported = [json.loads(line)["steps"] for line in lines if line.startswith('{"process"')]
        return reported[-1]


def start(hosts: Hosts, folder: Path) -> tuple[list[int], list[tuple[str, str]]]:
    starts = []
    for index in range(HOSTS):
        variables = {
            "LERAX_DIST_COORDINATOR_ADDRESS": f"{hosts.address(1)}:12345",
            "LERAX_DIST_NUM_PROCESSES": str(HOSTS),
            "LERAX_DIST_PROCESS_ID": str(index),
        }
        arguments = [str(WORKER), str(folder), str(HEARTBEAT), "60", *["go"] * HOSTS]
        command = hosts.on(index + 1, sys.executable, *arguments)
        starts.append((command, environment(1, hosts.variables | variables)))
    return run_all(starts, 100, None)


def cut_off(host: int, folder: Path) -> Cut:
    with made_hosts(HOSTS) as hosts, ThreadPoolExecutor(1) as pool:
        running = pool.submit(start, hosts, folder)
        wait_for_rows(folder / "r" / "journal.jsonl", 40, running.done)
        hosts.cut(host)
        begin = time.monotonic()
        codes, outputs = running.result()
        seconds = time.monotonic() - begin
        names = [hosts.name(index + 1) for index in range(HOSTS)]
    assert len(codes) == HOSTS, shown(codes, outputs)
    return Cut(names, seconds, codes, outputs, journal_rows(folder / "r"))


def wait_for_rows(journal: Path, count: int, over) -> None:
    """Wait until a run has written a number of lines; one that ends before prints the reason."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not over():
        with contextlib.suppress(FileNotFoundError):
            if len(journal.read_bytes().splitlines()) >= count:
                return
        threading.Event().wait(0.02)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Cut]]:
    """By number of the host that was cut off; at the same time, as they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        futures = {
            host: pool.submit(cut_off, host, tmp_path_factory.mktemp("c")) for host in (1, 3)
        }
        yield {host: future.result() for host, future in futures.items()}


@pytest.mark.parametrize("host", [3, 1], ids=["another", "coordinator"])
def test_the_lost_host_is_named_by_all_and_all_end_in_time(cuts: dict[int, Cut], host: int):
    cut = cuts[host]
    assert cut.seconds < LIMIT
    assert all(code != 0 for code in cut.codes)
    for process in range(HOSTS):
        # The host that is cut off has lost process 0, or if it holds process 0 the others.
        alone = process == host - 1
        lost = (1 if host == 1 else 0) if alone else host - 1
        text = cut.messages(process)
        assert f"process {lost} (host {cut.names[lost]})" in text, cut.outputs[process][1]
        assert "has sent no heartbeat for " in text


@pytest.mark.parametrize("host", [3, 1], ids=["another", "coordinator"])
def test_the_journal_holds_all_that_was_reduced(cuts: dict[int, Cut], host: int):
    cut = cuts[host]
    assert cut.rows == [(step, {"mean": 2.0 + step}) for step in range(len(cut.rows))]
    # Another process may have got its part of the last collective out when process 0 had not.
    assert len(cut.rows) >= max(cut.steps(0), cut.steps(1) - 1, cut.steps(2) - 1)
