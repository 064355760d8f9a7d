"""A run on a process that does not write it."""

from pathlib import Path
from typing import Any, final

from lerax_dist._failures import Failures
from lerax_dist.host._clips import ClipSpec
from lerax_dist.host._sink import Deliver, HostCallback, MessageFormat


@final
class IdleRun:
    """A run on a process that does not write it: the same calls, no thread, no file."""

    def __init__(self, name: str, directory: Path, process_index: int, failures: Failures) -> None:
        self.name = name
        self.directory = directory
        self.failures = failures
        self.sink = _StraySink(process_index, self.failures)
        self.clips = _StrayClips()
        self.closed = False

    def log(self, row: Any, size: int, begin: float) -> None:
        """Process 0 writes the row."""

    def put(self, event: Any) -> None:
        """Process 0 writes the event."""

    def sync_soon(self) -> None:
        """Nothing is written here."""

    def start_step(self, timeout: float) -> None:
        """Process 0 knows."""

    def flush(self, timeout: float) -> None:
        """Nothing is pending here."""

    def close(self, state: str, timeout: float) -> None:
        """Nothing is open here."""
        self.closed = True


@final
class _StraySink:
    """Says so if rows arrive at a process that does not write; they have nowhere to go."""

    def __init__(self, process_index: int, failures: Failures) -> None:
        self._process_index = process_index
        self._failures = failures

    def rows(self, row_format: MessageFormat, stride: int) -> Deliver:
        """What takes the rows of one schema."""

        def deliver(part: int, parts: int, payload: Any) -> None:
            self._failures.record(
                "callback",
                f"a row reached process {self._process_index}, but process 0 writes; it is not "
                "logged. The step runs as a program of this process alone (then pass "
                '`scope="process"`), or the first device of its mesh is not one of process 0 (then '
                "compile one program over a mesh of `jax.devices()` in their order).",
            )

        return deliver

    def start(
        self,
        stride: int,
        total_timesteps: int | None,
        total_iterations: int,
        hparams: dict[str, Any],
    ) -> Deliver:
        """What takes the start of a training: process 0 hears of it too."""
        return lambda part, parts, payload: None


@final
class _StrayClips:
    """Takes no clips. A clip that comes here has a row that does too, which is told of."""

    def disable(self, error: Exception) -> None:
        """Process 0 says why there are none."""

    def frames(self, tag: str, frames: Any, step: int, fps: float) -> None:
        """Process 0 keeps the clip."""

    def callback(self, spec: ClipSpec) -> HostCallback:
        """What takes the clips of one kind."""
        return lambda part, parts, payload: None
