"""Memory of a process that logs: what it holds does not grow with the run."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, tempfile
from pathlib import Path
import lerax_dist as ld

seen = []
with tempfile.TemporaryDirectory() as folder:
    with ld.Logger(ld.TensorBoardBackend(folder), "run") as logger:
        for step in range(40_000):
            logger.log({"a": step / 3, "b": step / 7, "c": step / 9, "d": 1.0}, step)
            if step % 10_000 == 9_999:
                logger.flush()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                seen.append(pages * resource.getpagesize())
print(json.dumps(seen))
"""


@pytest.mark.launch
def test_memory_is_flat_over_forty_thousand_rows():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    first, *later = json.loads(done.stdout)
    assert max(later) - first < 5 * 2**20
