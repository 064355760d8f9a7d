"""What a check works with: the other processes, and a thread for work on devices."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, final

from lerax_dist.cli.doctor._join import Joined
from lerax_dist.cluster import Launch

T = TypeVar("T")

# Seconds. The processes end work on devices up to a timeout apart, so messages wait for longer.
_GRACE = 15.0


@final
class Context:
    """What a check may use to collect its facts.

    Attributes:
        launch: what the environment says about this process.
        joined: what came of joining.
        group: all processes.
        log_dir: folder of the runs, as it was given.
        timeout: longest wait for devices or for other processes, in seconds.
        devices_failed: whether some work on devices raised or timed out.
        devices_hang: whether some work on devices timed out; no more is started.
    """

    def __init__(self, launch: Launch, joined: Joined, log_dir: str, timeout: float) -> None:
        self.launch = launch
        self.joined = joined
        self.group = joined.group
        self.log_dir = log_dir
        self.timeout = timeout
        self.devices_failed = False
        self.devices_hang = False
        # One thread does all work on devices: it may hang, and this thread still reports that.
        self._devices = ThreadPoolExecutor(1, "lerax_dist-doctor-devices")

    def on_devices(self, work: Callable[[], T]) -> T:
        """Run work on devices under the timeout, and return or raise what it does.

        Raises:
            TimeoutError: it is still running, or earlier work is.
        """
        if self.devices_hang:
            raise TimeoutError("earlier work on the devices is still running")
        future = self._devices.submit(work)
        try:
            return future.result(self.timeout)
        except BaseException as error:
            self.devices_failed = True
            self.devices_hang = not future.done()
            if self.devices_hang and isinstance(error, TimeoutError):
                raise TimeoutError(f"timed out after {self.timeout:g} s") from None
            raise

    def gather(self, value: Any, what: str) -> list[Any] | None:
        """Bring a JSON value of each process to process 0; None elsewhere."""
        return self.group.gather(value, timeout=self.timeout + _GRACE, what=what)

    def broadcast(self, value: Any, what: str) -> Any:
        """Give process 0's JSON value to every process."""
        return self.group.broadcast(value, timeout=self.timeout + _GRACE, what=what)

    def all_agree(self, yes: bool, what: str) -> bool:
        """Whether every process says yes; the same answer on every process."""
        answers = self.gather(yes, what)
        return self.broadcast(None if answers is None else all(answers), what)
