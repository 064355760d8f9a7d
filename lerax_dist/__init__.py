"""One metrics logger for a whole JAX run, whatever the number of processes and devices.

Metrics are reduced on the devices of all hosts, process 0 writes them once, and the training step
does not feel it. Importing this starts no MPI, no W&B, no TensorBoard, and opens nothing.
"""

from lerax_dist._callback import LoggingCallback as LoggingCallback
from lerax_dist._config import RunConfig as RunConfig
from lerax_dist._failures import Failure as Failure
from lerax_dist._failures import LoggingWarning as LoggingWarning
from lerax_dist._logger import Logger as Logger
from lerax_dist._open import close_runs as close_runs
from lerax_dist._protocol import AbstractCallback as AbstractCallback
from lerax_dist._protocol import AbstractCallbackState as AbstractCallbackState
from lerax_dist._protocol import AbstractCallbackStepState as AbstractCallbackStepState
from lerax_dist._protocol import EmptyCallbackState as EmptyCallbackState
from lerax_dist._protocol import IterationContext as IterationContext
from lerax_dist._protocol import ResetContext as ResetContext
from lerax_dist._protocol import StepContext as StepContext
from lerax_dist._protocol import TrainingContext as TrainingContext
from lerax_dist._schema import Finished as Finished
from lerax_dist._state import RunState as RunState
from lerax_dist._version import __version__ as __version__
from lerax_dist.backends import AbstractLoggingBackend as AbstractLoggingBackend
from lerax_dist.backends import ConsoleBackend as ConsoleBackend
from lerax_dist.backends import JSONLBackend as JSONLBackend
from lerax_dist.backends import MemoryBackend as MemoryBackend
from lerax_dist.backends import NoOpBackend as NoOpBackend
from lerax_dist.backends import Required as Required
from lerax_dist.backends import TensorBoardBackend as TensorBoardBackend
from lerax_dist.backends import WandbBackend as WandbBackend
from lerax_dist.cluster import JaxGroup as JaxGroup
from lerax_dist.cluster import MPIGroup as MPIGroup
from lerax_dist.cluster import ProcessGroup as ProcessGroup
from lerax_dist.cluster import SoloGroup as SoloGroup
from lerax_dist.cluster import initialize as initialize
from lerax_dist.device._pack import reduce as reduce
from lerax_dist.device._partials import AbstractPartial as AbstractPartial
from lerax_dist.device._partials import Last as Last
from lerax_dist.device._partials import Max as Max
from lerax_dist.device._partials import Mean as Mean
from lerax_dist.device._partials import Min as Min
from lerax_dist.device._partials import Sum as Sum
from lerax_dist.device._step_state import LoggingCallbackStepState as LoggingCallbackStepState
from lerax_dist.journal import RunData as RunData
from lerax_dist.journal import read_run as read_run
from lerax_dist.process_logs import get_logger as get_logger
from lerax_dist.process_logs import setup_logging as setup_logging
