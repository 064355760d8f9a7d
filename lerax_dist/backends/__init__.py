"""Where rows are written to: a file each, none of which knows jax."""

from lerax_dist.backends._base import AbstractLoggingBackend as AbstractLoggingBackend
from lerax_dist.backends._base import SupportsRows as SupportsRows
from lerax_dist.backends._base import SupportsRunEnd as SupportsRunEnd
from lerax_dist.backends._base import SupportsRunFacts as SupportsRunFacts
from lerax_dist.backends._base import SupportsTrainingStart as SupportsTrainingStart
from lerax_dist.backends._base import check_backends as check_backends
from lerax_dist.backends._console import ConsoleBackend as ConsoleBackend
from lerax_dist.backends._jsonl import JSONLBackend as JSONLBackend
from lerax_dist.backends._noop import NoOpBackend as NoOpBackend
from lerax_dist.backends._required import Required as Required
from lerax_dist.backends._required import unwrap as unwrap
from lerax_dist.backends._tensorboard import TensorBoardBackend as TensorBoardBackend
from lerax_dist.backends._wandb import WandbBackend as WandbBackend

# Temporary, as is `SetupProblem` in `_base.py`: the branch of the backends brings the real ones.
ALL_BACKENDS: tuple[type[AbstractLoggingBackend], ...] = (
    ConsoleBackend,
    JSONLBackend,
    TensorBoardBackend,
    WandbBackend,
)
