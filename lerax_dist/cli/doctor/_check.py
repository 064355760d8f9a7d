"""What a check of the doctor is, what it works with, and how checks name processes."""

import abc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Generic, TypeVar, final

from lerax_dist.backends import SetupProblem as Finding
from lerax_dist.cluster import Launch, ProcessGroup, name_processes

F = TypeVar("F")
T = TypeVar("T")

# A line of the report (name and value), or a column of its table (head and a cell a process).
Shown = tuple[str, str | list[str]]

# Seconds. The processes end work on devices up to a timeout apart, so messages wait for longer.
_GRACE = 15.0
# Characters.
_MAX_ERROR_LENGTH = 500


@final
class Context:
    """What a check may use to collect its facts."""

    def __init__(
        self,
        launch: Launch,
        group: ProcessGroup,
        log_dir: str,
        timeout: float,
        notes: Sequence[str] = (),
    ) -> None:
        self.launch = launch  # by the environment
        self.group = group  # all processes
        self.notes = notes  # warnings that were logged while it joined
        self.log_dir = log_dir  # as it was given
        self.timeout = timeout  # longest wait for devices or for other processes, in seconds
        self.devices_failed = False  # some work on devices raised or timed out
        self.devices_hang = False  # some work on devices timed out; no more is started
        # One thread does all work on devices: it may hang, and this thread still reports that.
        self._devices = ThreadPoolExecutor(1, "lerax_dist-doctor-devices")

    def on_devices(self, work: Callable[[], T]) -> T:
        """Run work on devices, and return or raise what it does; a TimeoutError if it hangs."""
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
        """Bring a JSON value of each process to process 0; `None` elsewhere."""
        return self.group.gather(value, timeout=self.timeout + _GRACE, what=what)

    def broadcast(self, value: Any, what: str) -> Any:
        """Send process 0's JSON value to every process."""
        return self.group.broadcast(value, timeout=self.timeout + _GRACE, what=what)

    def all_agree(self, yes: bool, what: str) -> bool:
        """Whether `yes` holds on every process; the same answer on every process."""
        answers = self.gather(yes, what)
        return self.broadcast(None if answers is None else all(answers), what)


class AbstractCheck(abc.ABC, Generic[F]):
    """A check of the doctor. To add one, see `CHECKS`.

    Attributes:
        key: name of its facts in the JSON report, under "facts".
        fact: type of the facts of one process: a dataclass of JSON values, or `dict`.
    """

    key: ClassVar[str]
    fact: type[F]

    @abc.abstractmethod
    def collect(self, context: Context) -> F | None:
        """Collect the facts of this process. Every process calls it, and may wait for the others.

        `None` if they cannot be collected, in all processes alike; or, if only process 0 has facts,
        in the others.
        """

    @abc.abstractmethod
    def judge(self, facts: Sequence[F], hosts: Sequence[str]) -> Iterator[Finding]:
        """Find what is wrong. The facts are of each process, or of process 0 alone; never empty."""

    @abc.abstractmethod
    def show(self, facts: Sequence[F]) -> Iterator[Shown]:
        """Show the facts, which are those of `judge`. A cell of what is wrong is in capitals."""


def named(indices: Sequence[int], hosts: Sequence[str]) -> str:
    """Processes with their hosts, e.g. "processes 1 (host a), 2 (host b)"."""
    return name_processes(indices, dict(enumerate(hosts)))


def group_by_value(values: Sequence[T]) -> dict[T, list[int]]:
    """Each value with the indices of the processes that have it."""
    groups: dict[T, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return groups


def format_differing(values: Sequence[T], hosts: Sequence[str]) -> str:
    """Each value with its processes, the most frequent first; empty if all values are equal."""
    groups = sorted(group_by_value(values).items(), key=lambda item: -len(item[1]))
    if len(groups) == 1:
        return ""
    return ", ".join(f"{value} on {named(indices, hosts)}" for value, indices in groups)


def one_line(error: BaseException) -> str:
    """Message of an error on one line."""
    return " ".join(str(error).split())[:_MAX_ERROR_LENGTH] or repr(error)
