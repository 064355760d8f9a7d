import subprocess
import sys

import pytest

from lerax_dist import backends

PUBLIC = [
    "ALL_BACKENDS",
    "AbstractLoggingBackend",
    "ConsoleBackend",
    "JSONLBackend",
    "MemoryBackend",
    "NoOpBackend",
    "Required",
    "SetupProblem",
    "TensorBoardBackend",
    "WandbBackend",
    "as_backend",
    "check_backends",
    "takes_batches",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there(name):
    assert hasattr(backends, name)


def test_every_concrete_backend_is_in_the_one_list():
    public = {getattr(backends, name) for name in PUBLIC if name.endswith("Backend")}
    assert set(backends.ALL_BACKENDS) == public - {backends.AbstractLoggingBackend}


def test_what_can_be_replayed_to_has_a_name_of_its_own():
    names = [cls.replay_name for cls in backends.ALL_BACKENDS if cls.replay_name is not None]
    assert len(set(names)) == len(names)


def test_importing_and_making_backends_loads_no_library_that_writes():
    program = """
import sys
from lerax_dist.backends import *
from lerax_dist import backends as b
made = [b.TensorBoardBackend(), b.WandbBackend(), b.ConsoleBackend(), b.JSONLBackend(),
    b.MemoryBackend()]
heavy = {"tensorboardX", "wandb", "rich", "PIL", "moviepy"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")
