"""Standard logging for several processes: one console for all, a file for each."""

from lerax_dist.process_logs._run_logs import RunLogs as RunLogs
from lerax_dist.process_logs._setup import get_logger as get_logger
from lerax_dist.process_logs._setup import setup_logging as setup_logging
