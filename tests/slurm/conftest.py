"""One SLURM for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Slurm, local_slurm, obstacle


@pytest.fixture(scope="session")
def _slurm() -> Iterator[Slurm]:
    reason = obstacle()
    if reason:
        pytest.skip(reason)
    with local_slurm() as slurm:
        yield slurm


@pytest.fixture
def slurm(_slurm: Slurm) -> Iterator[Slurm]:
    """A real SLURM without jobs."""
    yield _slurm
    _slurm.cancel()
