"""A run in TensorBoard's HParams tab, where runs are compared by their hyperparameters."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lerax_dist.backends._events import as_records, version_event

# TensorBoard reads the files of a folder in the order of their names and does not come back to one
# that it has left; so this one sorts before those that rows are appended to.
_NAME = "events.out.tfevents.0000000000.hparams"
_STATUS = {
    "finished": "STATUS_SUCCESS",
    "failed": "STATUS_FAILURE",
    "interrupted": "STATUS_FAILURE",
    # It neither failed nor reached its end: it goes on in another job.
    "preempted": "STATUS_UNKNOWN",
}


@final
class SessionFile:
    """Hyperparameters and state of a run, in an event file of their own that is replaced whole.

    Of several that one run has TensorBoard shows the first. Were they appended to the rows, what is
    logged later, or by the job that continues the run, would never be seen. Metrics to compare
    are all scalars of the run: TensorBoard finds them itself, as long as no run lists its own.

    Args:
        run_dir: folder of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / _NAME
        self._start: Any = None

    def start(self, hparams: Mapping[str, Any], started: float, now: float) -> None:
        """Write that the run goes on.

        Args:
            hparams: all its hyperparameters so far.
            started: when it was started, in seconds since the epoch.
            now: wall time in seconds.

        Raises:
            OSError: the file cannot be written.
        """
        self._start = session_start_event(hparams, started, now)
        self._replace([self._start])

    def end(self, state: str, now: float) -> None:
        """Write how the run ended, unless it has no hyperparameters.

        Args:
            state: see `SupportsRunEnd`.
            now: wall time in seconds.

        Raises:
            OSError: the file cannot be written.
        """
        if self._start is not None:
            self._replace([self._start, session_end_event(state, now)])

    def _replace(self, events: list[Any]) -> None:
        # Without the part of the name that TensorBoard goes by.
        fresh = self._path.with_name(f".hparams.{os.getpid()}.new")
        fresh.write_bytes(as_records([version_event(events[0].wall_time), *events]))
        os.replace(fresh, self._path)


def session_start_event(hparams: Mapping[str, Any], started: float, now: float) -> Any:
    """The event that makes a run a session of the HParams tab.

    Args:
        hparams: its hyperparameters; what is no finite number, string or boolean becomes its text.
        started: when it was started, in seconds since the epoch.
        now: wall time in seconds.
    """
    from tensorboardX.proto.plugin_hparams_pb2 import (
        SessionStartInfo,  # pyright: ignore[reportAttributeAccessIssue]
    )

    info = SessionStartInfo(start_time_secs=started)
    for key, value in hparams.items():
        match value:
            case bool():
                info.hparams[key].bool_value = value
            case int() | float() if math.isfinite(value):
                info.hparams[key].number_value = value
            case _:
                info.hparams[key].string_value = str(value)
    return _event("session_start_info", info, now)


def session_end_event(state: str, now: float) -> Any:
    """The event that ends a session.

    Args:
        state: how the run ended.
        now: wall time in seconds.
    """
    from tensorboardX.proto.api_pb2 import Status  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.plugin_hparams_pb2 import (
        SessionEndInfo,  # pyright: ignore[reportAttributeAccessIssue]
    )

    status = Status.Value(_STATUS.get(state, "STATUS_UNKNOWN"))
    return _event("session_end_info", SessionEndInfo(status=status, end_time_secs=now), now)


def _event(kind: str, info: Any, now: float) -> Any:
    # Protobuf makes its classes while it is imported, where no type checker sees them.
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.proto.plugin_hparams_pb2 import (
        HParamsPluginData,  # pyright: ignore[reportAttributeAccessIssue]
    )
    from tensorboardX.proto.summary_pb2 import (
        Summary,  # pyright: ignore[reportAttributeAccessIssue]
        SummaryMetadata,  # pyright: ignore[reportAttributeAccessIssue]
    )

    data = HParamsPluginData(version=0, **{kind: info}).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    value = Summary.Value(tag=f"_hparams_/{kind}", metadata=SummaryMetadata(plugin_data=plugin))
    return Event(wall_time=now, step=0, summary=Summary(value=[value]))
