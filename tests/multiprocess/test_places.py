"""Which GPU a process takes where its launcher says nothing of its place on the host."""

from pathlib import Path

from tests.multiprocess.launch import launch

WORKER = Path(__file__).parent / "workers" / "unplaced.py"


def test_each_process_of_a_host_takes_a_gpu_of_its_own():
    results = launch(WORKER, processes=2)
    assert [result.report["taken"] for result in results] == ["0", "1"]
