"""A process that leaves by `sys.exit` while another goes on: both are told who waits for whom."""

from pathlib import Path

import pytest

from tests.multiprocess.launch import launch

WORKER = Path(__file__).parent / "workers" / "ends.py"
HEARTBEAT, SHUTDOWN = "10", "25"


@pytest.mark.parametrize("leaver", [0, 1])
def test_who_is_done_and_for_whom_it_waits_is_said(tmp_path: Path, leaver: int):
    ways = ["hang", "hang"]
    ways[leaver] = "exit3"
    results = launch(
        *(WORKER, str(tmp_path), HEARTBEAT, SHUTDOWN, *ways),
        processes=2,
        launcher="explicit",
        check=False,
    )
    assert results[leaver].returncode == 3
    waits = f"this process is done and waits for process {1 - leaver}, at most"
    assert results[leaver].stderr.count(waits) == 1
    if leaver == 1:
        assert results[0].stderr.count("without an exception (by `sys.exit`?) and waits") == 1
