import subprocess
import sys

import pytest

from lerax_dist import backends

PUBLIC = [
    "AbstractLoggingBackend",
    "ConsoleBackend",
    "JSONLBackend",
    "NoOpBackend",
    "Required",
    "SupportsRunEnd",
    "SupportsRunFacts",
    "SupportsTrainingStart",
    "TensorBoardBackend",
    "WandbBackend",
    "check_backends",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there(name):
    assert hasattr(backends, name)


def test_importing_and_making_backends_loads_no_library_that_writes():
    program = """
import sys
from lerax_dist.backends import *
from lerax_dist import backends as b
made = [b.TensorBoardBackend(), b.WandbBackend(), b.ConsoleBackend(), b.JSONLBackend()]
heavy = {"tensorboardX", "wandb", "rich", "PIL", "moviepy"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
