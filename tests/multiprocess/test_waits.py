"""A process exits by `sys.exit` while another runs: both report which waits for which."""

from pathlib import Path

import pytest

from tests.multiprocess.launch import launch

WORKER = Path(__file__).parent / "workers" / "ends.py"
HEARTBEAT, SHUTDOWN = "10", "25"


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_process_that_has_finished_reports_for_which_it_waits(tmp_path: Path, leaver: int):
    ways = ["hang", "hang"]
    ways[leaver] = "exit3"
    results = launch(
        *(WORKER, str(tmp_path), HEARTBEAT, SHUTDOWN, *ways),
        processes=2,
        launcher="explicit",
        check=False,
    )
    assert results[leaver].returncode == 3
    waits = f"this process has finished and waits for process {1 - leaver}, at most"
    assert results[leaver].stderr.count(waits) == 1
    if leaver == 1:
        assert results[0].stderr.count("without an exception (`sys.exit`?) and waits") == 1
