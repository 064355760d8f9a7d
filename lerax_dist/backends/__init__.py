"""Where rows are written to: a file each, none of which knows jax."""

from lerax_dist.backends._append import FileRemoved as FileRemoved
from lerax_dist.backends._base import AbstractLoggingBackend as AbstractLoggingBackend
from lerax_dist.backends._base import SetupProblem as SetupProblem
from lerax_dist.backends._base import one_line as one_line
from lerax_dist.backends._check import Required as Required
from lerax_dist.backends._check import as_backend as as_backend
from lerax_dist.backends._check import check_backends as check_backends
from lerax_dist.backends._check import takes_batches as takes_batches
from lerax_dist.backends._jsonl import JSONLBackend as JSONLBackend
from lerax_dist.backends._memory import MemoryBackend as MemoryBackend
from lerax_dist.backends._noop import NoOpBackend as NoOpBackend
from lerax_dist.backends._tensorboard import TensorBoardBackend as TensorBoardBackend
from lerax_dist.backends._wandb import WandbBackend as WandbBackend
from lerax_dist.backends.console import ConsoleBackend as ConsoleBackend

# What `lerax-dist replay` and `lerax-dist doctor` go through; a new backend is added here.
ALL_BACKENDS: tuple[type[AbstractLoggingBackend], ...] = (
    TensorBoardBackend,
    WandbBackend,
    JSONLBackend,
    ConsoleBackend,
    MemoryBackend,
    NoOpBackend,
)
